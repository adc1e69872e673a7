"""How Rec2PM is trained (arXiv:2602.11605; docs/model-spec.md, "Rec2PM" and docs/model-spec.md, "Training").

Training needs no recurrence. Stage 1 (`references`) encodes the whole window once and reads from it what the memory
after every segment should be. Stage 2 folds all segments in parallel, each from the reference memories before it. With
`rollout` some segments are folded from what a stream would have written. That takes one pass more, segment after
segment, without gradient.
"""

import torch
from torch import Tensor
from torch.nn import functional

from model.networks.config import Rec2PMOptions, Shape
from model.networks.memory_network import MemoryNetwork
from model.networks.network import Losses, begun_segments, full_segments, memory_rows


class Rec2PM(MemoryNetwork):
    """Rec2PM-O or -A in training. `MemoryServing` answers requests with the same weights."""

    def __init__(self, shape: Shape, options: Rec2PMOptions, folds_kept: int) -> None:
        super().__init__(shape, options, folds_kept)
        self.options = options

    def references(self, items: Tensor) -> tuple[Tensor, Tensor]:
        """Stage 1: encode whole windows, and read what the memory after each of their segments should be.

        Item rows are causal and never see a write row, so they stay a plain encoding of the history. The write rows of
        segment h see all items up to the end of h and the earlier rows of their own group.

        Args:
            items: (B, K·L) int64, oldest first, right-padded. The memory after a segment that is not full means
                nothing.

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

    def losses(self, items: Tensor, targets: Tensor, negatives: Tensor, times: Tensor | None = None) -> Losses:  # noqa: ARG002
        """Predict the next item, and fold to the memory that the whole history would give.

        Stage 1 predicts the first segment, stage 2 the later ones, each from the reference memories before it. As
        inputs, references keep their gradient: nothing else rewards what a memory holds. Memories that `rollout` puts
        in their place have no gradient. As targets of the consistency loss, references are detached, unless
        `con_target_grad`.

        The first item of a later segment is also predicted from the last row before it, which is a memory slot or the
        end of the tail. That row ranks for a user who has a memory and an empty working memory.
        """
        L = self.segment_length
        hidden, references = self.references(items)  # (B, K·L, d), (B, K, C, d)
        B, K = references.shape[:2]
        segments, following = items.view(B, K, L), targets.view(B, K, L)
        user, before = begun_segments(items, L)[:, 1:].nonzero(
            as_tuple=True
        )  # (P,) the later segments that have an item
        tail = segments[user, before, L - self.overlap :]
        read = references
        if self.options.rollout:
            # After the first segment a stream has the same memory as the reference. Only the reference has a gradient,
            # and without it nothing rewards what is written.
            own = (before > 0) & (torch.rand(len(user), device=items.device) < self.options.rollout)
            read = references.index_put(
                (user[own], before[own]), self.rolled_out(items, references)[user[own], before[own]]
            )
        memory, present = self._held(read, user, before)
        folded, written = self.fold(memory, tail, segments[user, before + 1], present)  # (P, 1 + L, d), (P, C, d)
        full = full_segments(items, L)[user, before + 1]
        consistency = self.consistency_loss(references[user, before + 1][full], written[full])
        # The last target of a segment is the first item of the next segment.
        later = torch.cat([following[user, before, -1:], following[user, before + 1]], dim=1)  # (P, 1 + L)
        rows = torch.cat([hidden[:, :L].flatten(0, 1), folded.flatten(0, 1)])
        next_item = self.next_item_loss(
            rows, torch.cat([following[:, 0].flatten(), later.flatten()]), self._of_rows(negatives, user, before)
        )
        total = next_item + self.options.con_weight * consistency
        if self.options.stage1_weight and bool(following[:, 1:].any()):
            drawn = negatives if negatives.dim() == 1 else negatives[:, L:].flatten(0, 1)
            total = total + self.options.stage1_weight * self.next_item_loss(
                hidden[:, L:].flatten(0, 1), targets[:, L:].flatten(), drawn
            )
        return Losses(total, next_item, consistency)

    @torch.no_grad()
    def rolled_out(self, items: Tensor, references: Tensor) -> Tensor:
        """The memories after each segment if segments are folded in turn, as in a stream, from what the folds before
        them wrote: (B, K, C, d).

        Dropout is on in training, as it is for the references.
        """
        L = self.segment_length
        segments, begun = items.view(len(items), -1, L), begun_segments(items, L)
        own = references.clone()  # the first fold reads no memory and writes the reference
        for h in range(1, segments.size(1) - 1):
            user = begun[:, h + 1].nonzero().flatten()
            before = torch.full_like(user, h - 1)
            memory, present = self._held(own, user, before)
            _, own[user, h] = self.fold(memory, segments[user, h - 1, L - self.overlap :], segments[user, h], present)
        return own

    def _held(self, memories: Tensor, user: Tensor, before: Tensor) -> tuple[Tensor, Tensor | None]:
        """What folds read of the memories after each segment, (B, K, C, d).

        Returns:
            The memories of the G folds up to segment `before`, the newest last, (P, G·C, d). And which of their rows
            exist, (P, G·C) bool; None: all of them.
        """
        G = self.folds_kept
        fold = before[:, None] + torch.arange(1 - G, 1, device=before.device)  # (P, G)
        present = (fold >= 0).repeat_interleave(self.slots, 1) if G > 1 else None
        return memories[user[:, None], fold.clamp(min=0)].flatten(1, 2), present

    def _of_rows(self, negatives: Tensor, user: Tensor, before: Tensor) -> Tensor:
        """The negatives of each position, in the order of the rows of the loss."""
        if negatives.dim() == 1:
            return negatives
        each = negatives.view(len(negatives), -1, self.segment_length, negatives.size(2))  # (B, K, L, J)
        later = torch.cat([each[user, before, -1:], each[user, before + 1]], dim=1)  # (P, 1 + L, J)
        return torch.cat([each[:, 0].flatten(0, 1), later.flatten(0, 1)])

    def consistency_loss(self, reference: Tensor, written: Tensor) -> Tensor:
        """Mean squared difference of memories (P, C, d); 0 without any."""
        if reference.size(0) == 0:
            return written.new_zeros(())
        return functional.mse_loss(written, reference if self.options.con_target_grad else reference.detach())
