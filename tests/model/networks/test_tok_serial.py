"""Tok-Serial: trained through its own memories, a segment deeper every few epochs."""

import torch

from model.networks.tok_serial import TokSerial
from tests.model import tiny

L, V = tiny.L, tiny.V


def test_tok_serial_learns_through_its_memories_and_only_as_deep_as_its_stage() -> None:
    network = tiny.network(config=tiny.changed(tiny.config("tok-serial-o", "sasrec"), curriculum_epochs=2))
    assert isinstance(network, TokSerial)
    items = tiny.rows(2, 3 * L).clamp(max=V)
    for epoch, depth in ((1, 1), (2, 1), (3, 2), (6, 3), (99, 4)):
        network.stage(epoch)
        assert network.depth == depth
    targets = torch.zeros_like(items)
    targets[:, -1] = 5
    loss = network.losses(items, targets, torch.arange(10, 20)).total
    (gradient,) = torch.autograd.grad(loss, network.write)
    assert gradient.abs().max() > 0, "the last prediction teaches what the first fold writes"
    network.stage(1)
    assert network.losses(items, items.roll(-1, 1), torch.arange(10, 20)).total.isfinite()
