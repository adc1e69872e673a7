"""KV-Mask: one masked pass over a window equals folding it step by step (docs/model-spec.md, "KV-Mask")."""

import pytest
import torch

from model.networks.kv_mask import KVMask
from model.version import torchscript
from tests.model import tiny

L = tiny.L


@pytest.mark.parametrize("backbone", ["sasrec", "meta", "hstu"])
@pytest.mark.parametrize("kind", ["kv-mask-o", "kv-mask-a"])
def test_the_masked_pass_equals_cached_steps(kind: str, backbone: str) -> None:
    config = tiny.config(kind, backbone)
    network, program = tiny.network(config=config), torchscript.script(tiny.serving(config=config))
    assert isinstance(network, KVMask)
    items = tiny.rows(3, 4 * L)
    with torch.inference_mode():
        hidden = network.hidden(items)
        state = program.initial_memory(3)
        for h in range(4):
            segment = items[:, h * L : (h + 1) * L]
            for n in (1, 7, L):
                found = tiny.scores(program, state, segment[:, :n], torch.full((3,), n))
                expected = tiny.cosines(network, hidden[:, h * L + n - 1])
                torch.testing.assert_close(found, expected, atol=5e-6, rtol=0)
            state, last = program.update(state, segment, torch.full((3,), L))
            torch.testing.assert_close(last, hidden[:, (h + 1) * L - 1], atol=1e-5, rtol=1e-5)


def test_o_sees_the_last_folds_tokens_alone_and_a_those_before_too() -> None:
    items = tiny.rows(1, 4 * L)
    other = items.clone()
    other[:, :L] = items[:, :L] % tiny.V + 1
    for kind, direct in (("kv-mask-o", False), ("kv-mask-a", True)):
        network = tiny.network(config=tiny.config(kind, "sasrec"))
        assert isinstance(network, KVMask)
        tokens = []
        with torch.inference_mode():
            block = network.stack()[0]
            for each in (items, other):
                # The first layer's tokens are the same whatever was read: only deeper ones carry what came before.
                x = torch.cat([network.embed(each.view(4, L)), network.write_rows(4)], dim=1)
                tokens.append(block.keys_values(x)[0][:, L:])
            assert torch.equal(*tokens)
            one, two = network.hidden(items), network.hidden(other)
        assert not torch.allclose(one[:, L : 2 * L], two[:, L : 2 * L], atol=1e-5)
        assert network.folds_kept == (3 if direct else 1)
