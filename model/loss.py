"""Rec2PM's two losses (arXiv:2602.11605; MODEL.md §4.5): predict the next item, and fold to the memory the whole history would give."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from model.network import Rec2PM


@dataclass(frozen=True, slots=True)
class Losses:
    """Scalars. `total` = `next_item` + con_weight · `consistency`."""

    total: Tensor
    next_item: Tensor
    consistency: Tensor


def losses(network: Rec2PM, items: Tensor, targets: Tensor, negatives: Tensor) -> Losses:
    """Both losses of a batch of windows.

    The first segment is predicted from stage 1, later ones from stage 2, each given the reference memory before it. The references are not
    detached as inputs: only through them does anything reward what a memory holds. As targets of the consistency loss they are: the teacher
    is trained by being useful, and the student imitates.

    A later segment's first item is also predicted from the last memory slot alone: that row ranks for a user who has a memory and an empty
    working memory.

    Args:
        items: (B, K·L) int64 item rows, oldest first, right-padded with 0.
        targets: (B, K·L) int64, the item after each; 0 where there is none to predict.
        negatives: (N,) int64 item rows, shared by all positions.
    """
    L = network.segment_length
    hidden, references = network.references(items)  # (B, K·L, d), (B, K, C, d)
    segments, following = items.view(len(items), -1, L), targets.view(len(items), -1, L)  # (B, K, L)
    user, before = (segments[:, 1:, 0] != 0).nonzero(as_tuple=True)  # (P,): a segment that has a memory before it
    segment = segments[user, before + 1]  # (P, L)
    folded, written = network.fold(references[user, before], segment)  # (P, 1 + L, d), (P, C, d)
    # The last target of one segment is the first item of the next.
    later = torch.cat([following[user, before, -1:], following[user, before + 1]], dim=1)  # (P, 1 + L)

    rows = torch.cat([hidden[:, :L].flatten(0, 1), folded.flatten(0, 1)])
    wanted = torch.cat([following[:, 0].flatten(), later.flatten()])
    predicts = wanted != 0
    next_item = sampled_softmax(network, rows[predicts], wanted[predicts], negatives)

    full = segment[:, -1] != 0
    consistency = consistency_loss(references[user, before + 1][full], written[full])
    return Losses(next_item + network.config.con_weight * consistency, next_item, consistency)


def sampled_softmax(network: Rec2PM, hidden: Tensor, targets: Tensor, negatives: Tensor) -> Tensor:
    """Mean cross entropy of cosine logits over temperature: (R, d) rows, (R,) targets, (N,) shared negatives → scalar.

    A negative that is the target itself is left out of that row.
    """
    z = functional.normalize(hidden, dim=1, eps=1e-6)
    wanted = (z * functional.normalize(network.item(targets), dim=1, eps=1e-6)).sum(1, keepdim=True)  # (R, 1)
    others = z @ functional.normalize(network.item(negatives), dim=1, eps=1e-6).t()  # (R, N)
    others = others.masked_fill(targets[:, None] == negatives, float("-inf"))
    logits = torch.cat([wanted, others], dim=1) / network.config.temperature
    return functional.cross_entropy(logits, torch.zeros_like(targets))


def consistency_loss(reference: Tensor, written: Tensor) -> Tensor:
    """Mean squared distance of memories (P, C, d), the reference being a target only; 0 for no pairs."""
    if reference.size(0) == 0:
        return written.new_zeros(())
    return functional.mse_loss(written, reference.detach())
