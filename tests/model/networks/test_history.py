"""Full and Trunc: folding and then recommending equals one pass over the newest items."""

from dataclasses import replace

import pytest
import torch

from model.networks.history import History, HistoryServing
from model.networks.serving import LARGEST_ROW
from model.version import torchscript
from tests.model import tiny

L = tiny.L


@pytest.mark.parametrize(
    ("kind", "backbone"),
    [("full", "sasrec"), ("full", "meta"), ("full", "hstu"), ("trunc", "sasrec"), ("trunc", "hstu")],
)
def test_folding_then_recommending_equals_one_pass_over_the_newest_items(kind: str, backbone: str) -> None:
    config = tiny.config(kind, backbone)
    network, program = tiny.network(config=config), torchscript.script(tiny.serving(config=config))
    assert isinstance(network, History)
    items = tiny.rows(3, 6 * L)
    with torch.inference_mode():
        state = program.initial_memory(3)
        for h in range(6):
            for n in (1, 5, L):
                seen = items[:, max(0, h * L + n - network.window) : h * L + n]
                x = network.embed(seen)
                for block in network.stack():
                    x = block(x)
                found = tiny.scores(program, state, items[:, h * L : h * L + n], torch.full((3,), n))
                torch.testing.assert_close(found, tiny.cosines(network, x[:, -1]), atol=5e-6, rtol=0)
            state, last = program.update(state, items[:, h * L : (h + 1) * L], torch.full((3,), L))
            torch.testing.assert_close(last, x[:, -1], atol=1e-5, rtol=1e-5)


def test_the_state_is_the_newest_item_rows() -> None:
    program = tiny.serving(config=tiny.config("full", "sasrec"))
    items = tiny.rows(1, 6 * L)
    state = program.initial_memory(1)
    for h in range(6):
        state, _ = program.update(state, items[:, h * L : (h + 1) * L], torch.tensor([L]))
        newest = items[0, max(0, (h + 1) * L - 4 * L) : (h + 1) * L].tolist()
        assert state[0].tolist() == newest + [0] * (4 * L - len(newest))


def test_trunc_is_trained_on_windows_of_one_segment() -> None:
    network = tiny.network(config=tiny.config("trunc", "sasrec"))
    items = tiny.rows(2, 4 * L).clamp(max=60)
    whole = network.losses(items, items.roll(-1, 1), torch.arange(1, 9)).total
    cut = network.losses(items.view(8, L), items.roll(-1, 1).view(8, L), torch.arange(1, 9)).total
    torch.testing.assert_close(whole, cut)


def test_a_catalogue_that_float32_cannot_count_is_refused() -> None:
    network = tiny.network(config=tiny.table("full", n_items=9, layers=1))
    assert isinstance(network, History)
    network.shape = replace(network.shape, n_items=LARGEST_ROW)
    with pytest.raises(ValueError, match="too large for item rows"):
        HistoryServing(network, torch.ones(10))
