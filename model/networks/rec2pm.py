"""Rec2PM, in data order (arXiv:2602.11605; docs/model-spec.md, "Rec2PM"), and Tok-Serial, the same passes
trained one after another.

A user's history is cut into segments of L items. Preference memory M stands for all segments folded so far: folding
segment S is one causal pass over [M; S; Q], and the outputs at the C write rows Q are the new memory. O keeps the
memory of the last fold, A those of the last few. With `overlap` R the pass is [M; T; S; Q]: T, the tail, is the newest
R items that are folded already.

Rec2PM's training needs no recurrence. Stage 1 (`references`) encodes the whole window once and reads from it what the
memory after every segment should be; stage 2 folds all segments in parallel, each from the reference memories before
it. With `rollout` some are folded from what a stream would have written, which takes one pass more, segment after
segment, without gradient. Tok-Serial folds them in turn, from its own memories, and learns through all of them.
"""

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.networks.backbone import Block
from model.networks.network import Losses, NetworkConfig, SlotNetwork, begun_segments, full_segments, memory_rows
from model.networks.serving import Ranker, check_countable


class Rec2PM(SlotNetwork):
    """Rec2PM-O or -A as it is trained. `MemoryServing` answers requests with the same weights."""

    preset = ("read_gain",)

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__(config)
        self.slot = nn.Parameter(torch.empty(config.slots, config.d))
        # A memory is read at unit scale times this gain, so that slot vectors and content start at comparable sizes
        # (docs/model-spec.md, "Rec2PM").
        self.read_gain = nn.Parameter(torch.tensor(0.2))
        self.folds_kept, self.overlap = config.folds_kept, config.overlap
        if config.folds_kept > 1:
            self.age = nn.Parameter(torch.empty(config.folds_kept, config.d))

    def read(self, memory: Tensor) -> Tensor:
        """Memories of G folds, the newest last, as input rows: (P, G·C, d) → (P, G·C, d). No dropout: it would be noise
        in what is remembered.
        """
        G = memory.size(1) // self.slots
        place = self.slot.repeat(G, 1)
        if self.folds_kept > 1:
            place = place + self.age[:G].flip(0).repeat_interleave(self.slots, 0)
        rows: Tensor = self.norm(memory * self.read_gain + place)
        return rows

    def write_rows(self, batch: int, memory: Tensor | None = None) -> Tensor:
        """As in `SlotNetwork`; with `write_from_memory`, on top of the newest of the memories (P, G·C, d) that are
        read.
        """
        if self.config.write_from_memory and memory is not None and memory.size(1):
            rows: Tensor = self.norm(self.write + memory[:, -self.slots :] * self.read_gain)
            return rows
        return super().write_rows(batch)

    def references(self, items: Tensor) -> tuple[Tensor, Tensor]:
        """Stage 1: encode whole windows, and what the memory after each of their segments should be
        (docs/model-spec.md, "Rec2PM").

        Item rows are causal and never see a write row, so they stay a plain encoding of the history. The write rows of
        segment h see all items up to the end of h and the earlier rows of their own group.

        Args:
            items: (B, K·L) int64, oldest first, right-padded. A memory whose segment is not full is meaningless.

        Returns:
            Item hidden states (B, K·L, d) and reference memories (B, K, C, d).
        """
        B, T = items.size(0), items.size(1)
        L, C = self.segment_length, self.slots
        K = T // L
        group = torch.arange(K * C, device=items.device) // C
        sees_item = torch.arange(T, device=items.device)[None, :] // L <= group[:, None]  # (K·C, T)
        sees_write = (group[:, None] == group[None, :]).tril()  # (K·C, K·C)
        mask = torch.cat([sees_item, sees_write], dim=1)

        x = torch.cat([self.embed(items[:, h * L : (h + 1) * L], self.overlap) for h in range(K)], dim=1)  # (B, T, d)
        w = self.write_rows(B).repeat(1, K, 1)  # (B, K·C, d)
        for block in self.stack():
            (k, v), (k_w, v_w) = block.keys_values(x), block.keys_values(w)
            x, w = (
                block.attend_to(x, k, v, None, True),
                block.attend_to(w, torch.cat([k, k_w], dim=1), torch.cat([v, v_w], dim=1), mask, False),
            )
        return x, memory_rows(w).view(B, K, C, self.d)

    def fold(self, memory: Tensor, tail: Tensor, items: Tensor, present: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Fold segments, each given the memories before it and the tail of the last one.

        Args:
            memory: (P, G·C, d) float32, the newest fold's last.
            tail: (P, R) int64 item rows; (P, 0) where there is no overlap, or no memory.
            items: (P, L) int64, oldest first, right-padded. The memory after a segment that is not full is meaningless.
            present: (P, G·C) bool, which rows of `memory` hold something; None for all.

        Returns:
            Hidden states of the last row before the items, which predicts the first of them, and of the items, (P, 1 +
            L, d), and the memories after the segments, (P, C, d). Without memory the first of the hidden states is
            missing.
        """
        C, M, before = self.slots, memory.size(1), memory.size(1) + tail.size(1)
        parts = [
            self.read(memory),
            self.embed(tail),
            self.embed(items, self.overlap),
            self.write_rows(items.size(0), memory),
        ]
        x = torch.cat(parts, dim=1)  # (P, M + R + L + C, d)
        mask: Tensor | None = None
        if present is not None:
            N = x.size(1)
            row = torch.arange(N, device=x.device)
            held = functional.pad(present, (0, N - M), value=True)  # (P, N)
            mask = ((row[None, :] <= row[:, None]) & (held[:, None, :] | (row[None, :] == row[:, None])))[
                :, None
            ]  # (P, 1, N, N)
        for block in self.stack():
            x = block(x, mask)
        return x[:, max(before - 1, 0) : -C], memory_rows(x[:, -C:])

    def losses(self, items: Tensor, targets: Tensor, negatives: Tensor, times: Tensor | None = None) -> Losses:  # noqa: ARG002
        """Predict the next item, and fold to the memory that the whole history would give (docs/model-spec.md,
        "Training").

        The first segment is predicted from stage 1, later ones from stage 2, each given the reference memories before
        it. The references are not detached as inputs: only through them does anything reward what a memory holds; what
        `rollout` puts in their place has no gradient. As targets of the consistency loss they are detached, unless
        `con_target_grad`: the teacher is trained by being useful, and the student imitates.

        A later segment's first item is also predicted from the last row before it, a memory slot or the end of the
        tail: that row ranks for a user who has a memory and an empty working memory.
        """
        L = self.segment_length
        hidden, references = self.references(items)  # (B, K·L, d), (B, K, C, d)
        B, K = references.shape[:2]
        segments, following = items.view(B, K, L), targets.view(B, K, L)
        user, before = begun_segments(items, L)[:, 1:].nonzero(
            as_tuple=True
        )  # (P,): a segment that has a memory before it
        tail = segments[user, before, L - self.overlap :]
        read = references
        if self.config.rollout:
            # After the first segment both are the same, and only the reference has a gradient: without it nothing
            # rewards what is written.
            own = (before > 0) & (torch.rand(len(user), device=items.device) < self.config.rollout)
            read = references.index_put(
                (user[own], before[own]), self.rolled_out(items, references)[user[own], before[own]]
            )
        memory, present = self._held(read, user, before)
        folded, written = self.fold(memory, tail, segments[user, before + 1], present)  # (P, 1 + L, d), (P, C, d)
        full = full_segments(items, L)[user, before + 1]
        consistency = self.consistency_loss(references[user, before + 1][full], written[full])
        # The last target of one segment is the first item of the next.
        later = torch.cat([following[user, before, -1:], following[user, before + 1]], dim=1)  # (P, 1 + L)
        rows = torch.cat([hidden[:, :L].flatten(0, 1), folded.flatten(0, 1)])
        next_item = self.next_item_loss(
            rows, torch.cat([following[:, 0].flatten(), later.flatten()]), self._of_rows(negatives, user, before)
        )
        total = next_item + self.config.con_weight * consistency
        if self.config.stage1_weight and bool(following[:, 1:].any()):
            drawn = negatives if negatives.dim() == 1 else negatives[:, L:].flatten(0, 1)
            total = total + self.config.stage1_weight * self.next_item_loss(
                hidden[:, L:].flatten(0, 1), targets[:, L:].flatten(), drawn
            )
        return Losses(total, next_item, consistency)

    @torch.no_grad()
    def rolled_out(self, items: Tensor, references: Tensor) -> Tensor:
        """The memories after each segment when segments are folded in turn, as in a stream, from what the folds before
        them wrote, (B, K, C, d).

        In training dropout is on, as it is for the references.
        """
        L = self.segment_length
        segments, begun = items.view(len(items), -1, L), begun_segments(items, L)
        own = references.clone()  # without a memory to read, a fold writes the reference
        for h in range(1, segments.size(1) - 1):
            user = begun[:, h + 1].nonzero().flatten()
            before = torch.full_like(user, h - 1)
            memory, present = self._held(own, user, before)
            _, own[user, h] = self.fold(memory, segments[user, h - 1, L - self.overlap :], segments[user, h], present)
        return own

    def _held(self, memories: Tensor, user: Tensor, before: Tensor) -> tuple[Tensor, Tensor | None]:
        """What folds read of the memories after each segment, (B, K, C, d): those of the G folds up to `before`, the
        newest last, (P, G·C, d), and which of their rows there are, (P, G·C); None for all."""
        G = self.folds_kept
        fold = before[:, None] + torch.arange(1 - G, 1, device=before.device)  # (P, G)
        present = (fold >= 0).repeat_interleave(self.slots, 1) if G > 1 else None
        return memories[user[:, None], fold.clamp(min=0)].flatten(1, 2), present

    def _of_rows(self, negatives: Tensor, user: Tensor, before: Tensor) -> Tensor:
        """Negatives of each position, in the order of the loss's rows."""
        if negatives.dim() == 1:
            return negatives
        each = negatives.view(len(negatives), -1, self.segment_length, negatives.size(2))  # (B, K, L, N)
        later = torch.cat([each[user, before, -1:], each[user, before + 1]], dim=1)  # (P, 1 + L, N)
        return torch.cat([each[:, 0].flatten(0, 1), later.flatten(0, 1)])

    def consistency_loss(self, reference: Tensor, written: Tensor) -> Tensor:
        """Mean squared distance of memories (P, C, d); 0 for no pairs."""
        if reference.size(0) == 0:
            return written.new_zeros(())
        return functional.mse_loss(written, reference if self.config.con_target_grad else reference.detach())


class TokSerial(Rec2PM):
    """The same passes, trained through their own memories, segment after segment (RMT; AutoCompressors accumulates: A).

    Windows grow by a segment every few epochs: without that curriculum the first memories are noise for too long
    (docs/model-spec.md, "Tok-Serial").
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__(config)
        self.depth = config.segments

    def stage(self, epoch: int) -> None:
        self.depth = min(self.config.segments, 1 + (epoch - 1) // self.config.curriculum_epochs)

    def losses(self, items: Tensor, targets: Tensor, negatives: Tensor, times: Tensor | None = None) -> Losses:  # noqa: ARG002
        L = self.segment_length
        K = min(items.size(1) // L, self.depth)
        segments, following = items.view(len(items), -1, L), targets.view(len(items), -1, L)
        each = negatives.view(len(items), -1, L, negatives.size(2)) if negatives.dim() > 1 else negatives
        begun = begun_segments(items, L)
        memories: list[Tensor] = []
        rows, wanted, drawn = [], [], []
        for h in range(K):
            # Later segments of shorter windows are padding; they are folded along and count for nothing.
            here = begun[:, h]
            before = [memory[here] for memory in memories[-self.folds_kept :]]
            memory = (
                torch.cat(before, dim=1) if before else items.new_zeros(int(here.sum()), 0, self.d, dtype=torch.float32)
            )
            tail = segments[here, h - 1, L - self.overlap :] if h else segments[here, 0, :0]
            hidden, written = self.fold(memory, tail, segments[here, h])
            after = written.new_zeros(len(items), self.slots, self.d).index_put((here.nonzero().flatten(),), written)
            memories.append(after)
            target = following[here, h]
            if h:
                target = torch.cat([following[here, h - 1, -1:], target], dim=1)
            rows.append(hidden.flatten(0, 1))
            wanted.append(target.flatten())
            if negatives.dim() > 1:
                mine = each[here, h] if not h else torch.cat([each[here, h - 1, -1:], each[here, h]], dim=1)
                drawn.append(mine.flatten(0, 1))
        next_item = self.next_item_loss(torch.cat(rows), torch.cat(wanted), torch.cat(drawn) if drawn else negatives)
        return Losses(next_item, next_item, next_item.new_zeros(()))


class MemoryServing(Ranker):
    """Rec2PM and Tok-Serial under the contract of `model.networks.serving`.

    The state is the memories of the last folds, (G·C, d), oldest first, and with an overlap as many rows more as the
    tail's item rows need.
    """

    place: Tensor

    def __init__(self, network: Rec2PM, popularity: Tensor) -> None:
        super().__init__(network, popularity)
        self.network = network = copy.deepcopy(network)
        stack = network.stack()
        self.body = nn.ModuleList(stack[:-1])
        self.head: Block = stack[-1]
        self.slots, self.folds_kept, self.item_scale = network.slots, network.folds_kept, network.item_scale
        self.overlap, self.memory_rows = network.overlap, network.folds_kept * network.slots
        self.write_from_memory = network.config.write_from_memory
        self.rows = self.memory_rows + -(-network.overlap // self.d)
        if network.overlap:
            check_countable(network.config)
        # The attention kernel is fastest on multiples of 16 rows; HSTU's chunks have no such preference.
        self.row_multiple = 1 if network.config.backbone == "hstu" else 16
        age = network.age.detach() if network.folds_kept > 1 else torch.zeros(1, self.d)
        # What is added to the memories of G folds, the newest last; fewer folds take its end.
        self.register_buffer(
            "place", network.slot.detach().repeat(self.folds_kept, 1) + age.flip(0).repeat_interleave(self.slots, 0)
        )

    def spec(self) -> dict[str, int]:
        return self.described(self.rows * self.d)

    def initial_memory(self, batch: int) -> Tensor:
        """(B, G·C + ⌈R/d⌉, d)."""
        return torch.zeros(batch, self.rows, self.d)

    def update(
        self,
        memory: Tensor,
        items: Tensor,
        lengths: Tensor,
        times: Tensor | None = None,  # noqa: ARG002
    ) -> tuple[Tensor, Tensor]:
        folds = self.folds_of(memory)
        g = int(folds[0])
        if bool((folds == g).all()):
            return self.fold(memory, g, items, lengths)
        after, hidden = torch.empty_like(memory), memory.new_empty(memory.size(0), self.d)
        for g in range(self.folds_kept + 1):
            row = (folds == g).nonzero().flatten()
            if row.numel():
                part, part_hidden = self.fold(memory[row], g, items[row], lengths[row])
                after[row], hidden[row] = part, part_hidden
        return after, hidden

    def encode(
        self,
        memory: Tensor,
        items: Tensor,
        lengths: Tensor,
        times: Tensor | None = None,  # noqa: ARG002
        query_time: Tensor | None = None,  # noqa: ARG002
    ) -> Tensor:
        folds = self.folds_of(memory)
        g = int(folds[0])
        if bool((folds == g).all()):
            return self.last(memory, g, items, lengths)
        hidden = memory.new_empty(memory.size(0), self.d)
        for g in range(self.folds_kept + 1):
            row = (folds == g).nonzero().flatten()
            if row.numel():
                hidden[row] = self.last(memory[row], g, items[row], lengths[row])
        return hidden

    def folds_of(self, memory: Tensor) -> Tensor:
        """How many folds' memories each state holds, (B,) int64: a written slot is never all zeros."""
        return memory[:, : self.memory_rows : self.slots].any(2).sum(1)

    def last(self, memory: Tensor, g: int, items: Tensor, lengths: Tensor) -> Tensor:
        """`encode` for a batch in which everybody has the memories of g folds."""
        n, before = items.size(1), self.before(g)
        if before + n == 0:
            return torch.zeros(items.size(0), self.d)
        # Padding comes after everything a user's own rows may see, so the causal pass needs no mask until the last row
        # looks at all of them.
        x = self.inputs(memory, g, functional.pad(items, (0, -(before + n) % self.row_multiple)), False)
        for block in self.body:
            x = block(x)
        at = (lengths + (before - 1)).clamp(min=0)  # (B,) the row to rank by
        if items.size(0) == 1:
            end = int(at) + 1
            hidden = self.head.attend(x[:, end - 1 : end], x[:, :end], None)[:, 0]
        else:
            mask = (torch.arange(x.size(1)) <= at[:, None])[:, None, None]  # (B, 1, 1, N)
            hidden = self.head.attend(x[torch.arange(x.size(0)), at][:, None], x, mask)[:, 0]
        if before == 0:
            hidden = hidden * (lengths > 0)[:, None]
        return hidden

    def before(self, g: int) -> int:
        """Rows that stand before the items where the memories of g folds are read."""
        return g * self.slots + self.overlap if g else 0

    def inputs(self, memory: Tensor, g: int, items: Tensor, write: bool) -> Tensor:
        """[M; T; S; Q] as input rows, (B, N, d), leaving out what is not there or not asked for."""
        B, n, R = items.size(0), items.size(1), self.overlap
        network = self.network
        position = network.position[R:]
        position = position[:n] if n <= self.segment_length else position[torch.arange(n) % self.segment_length]
        rows = [network.item(items) * self.item_scale + position]
        if g:
            if R:
                tail = memory[:, self.memory_rows :].flatten(1)[:, :R].to(torch.int64)
                rows.insert(0, network.item(tail) * self.item_scale + network.position[:R])
            held = memory[:, : g * self.slots]
            rows.insert(0, held * network.read_gain + self.place[self.memory_rows - held.size(1) :])
        if write:
            w = network.write.expand(B, -1, -1)
            rows.append(
                w + memory[:, (g - 1) * self.slots : g * self.slots] * network.read_gain
                if g and self.write_from_memory
                else w
            )
        x: Tensor = network.norm(torch.cat(rows, dim=1))
        return x

    def fold(self, memory: Tensor, g: int, items: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """`update` for a batch in which everybody has the memories of g folds."""
        B, n, C = items.size(0), items.size(1), self.slots
        x = self.inputs(memory, g, items, True)
        N = x.size(1)
        if int(lengths.min()) == n:
            for block in self.body:
                x = block(x)
            # Only the last item's row and the write rows leave the last block.
            y = self.head.attend(x[:, N - C - 1 :], x, torch.ones(C + 1, N, dtype=torch.bool).tril(N - C - 1))
        else:
            column = torch.arange(N)
            at = N - C - n - 1 + lengths  # (B,) the last item's row
            real = (column[None, :] <= at[:, None]) | (column[None, :] >= N - C)  # (B, N)
            # A padded row keeps itself in sight: a row that sees nothing would be NaN.
            mask = ((real[:, None, :] & (column[None, :] <= column[:, None])) | (column[None, :] == column[:, None]))[
                :, None
            ]
            for block in self.body:
                x = block(x, mask)
            rows = torch.cat([at[:, None], column[None, N - C :].expand(B, -1)], dim=1)  # (B, 1 + C)
            each = torch.arange(B)[:, None]
            y = self.head.attend(x[each, rows], x, mask[each, 0, rows][:, None])
        written = memory_rows(y[:, 1:])
        older = memory[:, max(0, g + 1 - self.folds_kept) * C : g * C]
        kept = [older, written, memory.new_zeros(B, max(0, self.folds_kept - g - 1) * C, self.d)]
        if self.overlap:
            newest = (lengths[:, None] + torch.arange(-self.overlap, 0)).clamp(min=0)  # a full segment has as many
            tail = items.gather(1, newest.clamp(max=n - 1)).to(torch.float32)
            kept.append(
                functional.pad(tail, (0, (self.rows - self.memory_rows) * self.d - self.overlap)).view(B, -1, self.d)
            )
        return torch.cat(kept, dim=1), y[:, 0]
