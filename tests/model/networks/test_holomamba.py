"""HoloMambaRec: token by token equals the sequence pass, and binding is circular convolution (docs/model-spec.md,
"HoloMambaRec").
"""

import math

import torch

from model.networks import kinds
from model.networks.holomamba import HoloMamba, bind
from model.networks.network import initialise
from model.version import torchscript
from tests.model import tiny

L = tiny.L
CONFIG = tiny.config("holomambarec", "none")


def test_binding_is_circular_convolution_over_the_root_of_the_width() -> None:
    x, y = torch.randn(3, 8), torch.randn(3, 8)
    for b in range(3):
        direct = [sum(float(x[b, j] * y[b, (i - j) % 8]) for j in range(8)) / math.sqrt(8) for i in range(8)]
        torch.testing.assert_close(bind(x, y)[b], torch.tensor(direct), atol=1e-5, rtol=0)


def test_token_by_token_equals_the_sequence_pass() -> None:
    network, program = tiny.network(config=CONFIG), torchscript.script(tiny.serving(config=CONFIG))
    assert isinstance(network, HoloMamba)
    items = tiny.rows(2, 20)
    with torch.inference_mode():
        x, real = network.inputs(items), items != 0
        for mixer in network.mixers:
            x, _, _ = mixer(x, real, torch.zeros(2, 32, 16), torch.zeros(2, 32, 3))
        state, one = program.initial_memory(2), torch.ones(2, dtype=torch.int64)
        for t in range(20):
            state, hidden = program.update(state, items[:, t : t + 1], one)
            torch.testing.assert_close(hidden, x[:, t], atol=5e-6, rtol=0)
        at_once, last = program.update(program.initial_memory(2), items, 20 * one)
        torch.testing.assert_close(state, at_once, atol=5e-6, rtol=0)
        torch.testing.assert_close(last, hidden, atol=5e-6, rtol=0)


def test_an_items_attribute_changes_what_it_means_and_items_without_one_are_themselves() -> None:
    network = tiny.network(config=CONFIG)
    assert isinstance(network, HoloMamba)
    with torch.inference_mode():
        before = network.inputs(torch.arange(1, 13))
        network.attribute_of = (network.attribute_of + 1) % 6
        after = network.inputs(torch.arange(1, 13))
        network.attribute_of = torch.zeros_like(network.attribute_of)
        bare = network.inputs(torch.arange(1, 13))
    assert (before - after).abs().amax(1).min() > 1e-4
    torch.testing.assert_close(bare, network.input_norm(network.item(torch.arange(1, 13))))


def test_a_new_networks_items_and_what_is_bound_to_them_are_of_one_size() -> None:
    config = tiny.changed(CONFIG, d=64)
    network = kinds.build(config, torch.tensor([0, *(1 + row % 5 for row in range(config.shape.n_items)), 0]))
    assert isinstance(network, HoloMamba)
    initialise(network, torch.Generator().manual_seed(0))
    vectors = network.item.weight[1:-1].detach()
    bound = bind(vectors, network.attribute(network.attribute_of[1:-1])).detach()
    assert 0.8 < float(bound.std() / vectors.std()) < 1.25
