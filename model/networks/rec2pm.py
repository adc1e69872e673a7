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

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.networks.network import Losses, NetworkConfig, SlotNetwork, begun_segments, full_segments, memory_rows


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
