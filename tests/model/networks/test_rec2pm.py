"""What has to hold between training and serving of Rec2PM (docs/model-spec.md, "Rec2PM"), on the scripted network
reloaded from disk.
"""

import pytest
import torch
from torch import Tensor

from model.networks.config import NetworkConfig
from model.networks.memory_network import MemoryNetwork
from model.networks.rec2pm import Rec2PM
from model.version import artifact, torchscript
from model.version.torchscript import Program
from tests.model import tiny

L = tiny.L
V = tiny.V


@pytest.fixture(scope="module", params=["sasrec", "meta", "hstu", "overlap", "write_from_memory"])
def config(request: pytest.FixtureRequest) -> NetworkConfig:
    if request.param == "write_from_memory":
        return tiny.config("rec2pm-o", "write_from_memory")
    if request.param == "overlap":
        return tiny.config("rec2pm-o", "overlap")
    return tiny.config("rec2pm-o", request.param)


@pytest.fixture(scope="module")
def program(config: NetworkConfig, tmp_path_factory: pytest.TempPathFactory) -> Program:
    return artifact.load(tiny.add(tmp_path_factory.mktemp("registry"), config=config).uri).program


def tails(config: NetworkConfig, segments: Tensor) -> Tensor:
    """(B, K, L) → (B·(K - 1), R): the end of the segment before each later one."""
    return segments[:, :-1, L - config.options.overlap :].flatten(0, 1)


def state_of(config: NetworkConfig, memory: Tensor, segment: Tensor) -> Tensor:
    """The state after a fold, (B, C, d) and (B, L)."""
    if not config.options.overlap:
        return memory
    tail = torch.zeros(len(memory), 1, config.shape.d)
    tail[:, 0, : config.options.overlap] = segment[:, L - config.options.overlap :].float()
    return torch.cat([memory, tail], dim=1)


def rec2pm(config: NetworkConfig) -> Rec2PM:
    network = tiny.network(config=config)
    assert isinstance(network, Rec2PM)
    return network


def _lengths(items: Tensor) -> Tensor:
    return torch.full((len(items),), items.size(1))


def test_reference_memories_equal_compressing_the_whole_history_at_once(
    program: Program, config: NetworkConfig
) -> None:
    items = tiny.rows(4, 3 * L)
    with torch.inference_mode():
        _, references = rec2pm(config).references(items)
        for h in range(3):
            prefix = items[:, : (h + 1) * L]
            at_once, _ = program.update(program.initial_memory(4), prefix, _lengths(prefix))
            torch.testing.assert_close(at_once[:, :3], references[:, h], atol=5e-6, rtol=0)


def test_the_first_fold_gives_the_reference_memory_and_hidden_state(program: Program, config: NetworkConfig) -> None:
    items = tiny.rows(4, 2 * L)
    with torch.inference_mode():
        hidden, references = rec2pm(config).references(items)
        memory, last = program.update(program.initial_memory(4), items[:, :L], _lengths(items[:, :L]))
    torch.testing.assert_close(memory[:, :3], references[:, 0], atol=2e-6, rtol=0)
    torch.testing.assert_close(last, hidden[:, L - 1], atol=2e-6, rtol=0)


def test_folding_in_parallel_equals_folding_one_after_another_from_the_references(
    program: Program, config: NetworkConfig
) -> None:
    items = tiny.rows(2, 4 * L)
    network = rec2pm(config)
    with torch.inference_mode():
        _, references = network.references(items)
        segments = items.view(2, 4, L)
        hidden, written = network.fold(
            references[:, :-1].flatten(0, 1), tails(config, segments), segments[:, 1:].flatten(0, 1)
        )
        for h in range(1, 4):
            state = state_of(config, references[:, h - 1], segments[:, h - 1])
            memory, last = program.update(state, segments[:, h], torch.full((2,), L))
            torch.testing.assert_close(written.view(2, 3, 3, 16)[:, h - 1], memory[:, :3], atol=5e-6, rtol=0)
            torch.testing.assert_close(hidden.view(2, 3, 1 + L, -1)[:, h - 1, -1], last, atol=5e-6, rtol=0)
            empty = torch.zeros(2, dtype=torch.int64)
            alone = tiny.scores(program, state, segments[:, h], empty)
            torch.testing.assert_close(
                tiny.cosines(network, hidden.view(2, 3, 1 + L, -1)[:, h - 1, 0]),
                alone,
                atol=5e-6,
                rtol=0,
            )


def test_a_reference_memory_does_not_depend_on_later_segments(config: NetworkConfig) -> None:
    network, items = rec2pm(config), tiny.rows(2, 3 * L)
    other = items.clone()
    other[:, 2 * L :] = (items[:, 2 * L :] % V) + 1
    with torch.inference_mode():
        hidden, references = network.references(items)
        hidden_other, references_other = network.references(other)
    torch.testing.assert_close(references[:, :2], references_other[:, :2], atol=0, rtol=0)
    torch.testing.assert_close(hidden[:, : 2 * L], hidden_other[:, : 2 * L], atol=0, rtol=0)
    assert not torch.allclose(references[:, 2], references_other[:, 2])


@pytest.mark.parametrize("rollout", [0.0, 1.0])
def test_predicting_the_next_item_teaches_the_write_vectors(config: NetworkConfig, rollout: float) -> None:
    network = rec2pm(tiny.changed(config, rollout=rollout))
    items = tiny.rows(3, 2 * L)
    found = network.losses(items, items.roll(-1, dims=1), torch.arange(1, 21))
    (gradient,) = torch.autograd.grad(found.next_item, network.write)
    assert gradient.abs().max() > 0


def test_every_row_predicts_the_item_after_it_and_the_last_memory_slot_the_first_of_its_segment(
    config: NetworkConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    history = tiny.rows(1, 2 * L + 4).clamp(max=V)
    items, targets = torch.zeros(2, 1, 3 * L, dtype=torch.int64).unbind(0)
    items[:, : 2 * L + 3], targets[:, : 2 * L + 3] = history[:, :-1], history[:, 1:]
    seen: list[Tensor] = []

    def note(rows: Tensor, wanted: Tensor, negatives: Tensor) -> Tensor:
        seen.append(wanted[wanted != 0])
        return rows.sum()

    network = rec2pm(config)
    monkeypatch.setattr(network, "next_item_loss", note)
    network.losses(items, targets, torch.arange(1, 5))
    first, second, third = history[0, 1 : L + 1], history[0, L : 2 * L + 1], history[0, 2 * L :]
    assert torch.equal(seen[0], torch.cat([first, second, third]))


def test_the_consistency_loss_does_not_move_its_target(config: NetworkConfig) -> None:
    reference = torch.randn(4, 3, 16, requires_grad=True)
    written = torch.randn(4, 3, 16, requires_grad=True)
    rec2pm(config).consistency_loss(reference, written).backward()  # type: ignore[no-untyped-call]
    assert reference.grad is None
    assert written.grad is not None
    assert written.grad.abs().max() > 0
    rec2pm(tiny.changed(config, con_target_grad=True)).consistency_loss(reference, written).backward()  # type: ignore[no-untyped-call]
    assert reference.grad is not None


def test_the_consistency_loss_is_a_mean_over_full_later_segments(config: NetworkConfig) -> None:
    network = rec2pm(config)
    items = tiny.rows(2, 3 * L)
    items[1, L:] = 0
    items[0, 2 * L + 3 :] = 0
    _, references = network.references(items)
    _, written = network.fold(references[:1, 0], items[:1, L - config.options.overlap : L], items[:1, L : 2 * L])
    found = network.losses(items, torch.zeros_like(items).index_fill(1, torch.tensor([0]), 1), torch.arange(2, 5))
    torch.testing.assert_close(found.consistency, ((written - references[:1, 1]) ** 2).mean(), atol=1e-6, rtol=1e-5)


def test_a_history_of_one_segment_has_no_consistency_loss(config: NetworkConfig) -> None:
    items = tiny.rows(2, L)
    assert rec2pm(config).losses(items, items.roll(-1, dims=1), torch.arange(1, 5)).consistency == 0


def test_stage_1_learns_to_predict_what_stage_2_predicts_of_later_segments(
    config: NetworkConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = tiny.rows(2, 2 * L).clamp(max=V)
    targets, negatives = items.roll(-1, dims=1), torch.arange(1, 5)
    network = rec2pm(tiny.changed(config, stage1_weight=0.5))
    with torch.inference_mode():
        found = network.losses(items, targets, negatives)
        hidden, _ = network.references(items)
        extra = network.next_item_loss(hidden[:, L:].flatten(0, 1), targets[:, L:].flatten(), negatives)
        plain = rec2pm(config).losses(items, targets, negatives)
        each = network.losses(items, targets, negatives.expand(2, 2 * L, 4))
    assert found.next_item == plain.next_item
    torch.testing.assert_close(found.total, plain.total + 0.5 * extra, atol=1e-5, rtol=0)
    torch.testing.assert_close(each.total, found.total, atol=1e-5, rtol=0)


def test_rolled_out_memories_are_those_of_folding_one_after_another(program: Program, config: NetworkConfig) -> None:
    items = tiny.rows(3, 4 * L)
    items[1, 2 * L + 1 :] = 0
    network = rec2pm(config)
    with torch.inference_mode():
        _, references = network.references(items)
        own = network.rolled_out(items, references)
        state = program.initial_memory(3)
        for h in range(3):
            folds = torch.tensor([0, 2] if h == 2 else [0, 1, 2])
            state[folds], _ = program.update(
                state[folds], items[folds, h * L : (h + 1) * L], torch.full((len(folds),), L)
            )
            torch.testing.assert_close(own[folds, h], state[folds, :3], atol=2e-5, rtol=0)
    assert (own[:, 1] - references[:, 1]).abs().max() > 1e-3


def test_with_rollout_segments_are_folded_and_predicted_from_memories_that_folds_wrote(config: NetworkConfig) -> None:
    items = tiny.rows(2, 3 * L).clamp(max=V)
    # Nothing but the last segment is predicted.
    targets, negatives = torch.zeros_like(items), torch.arange(1, 5)
    targets[:, 2 * L :] = items.roll(-1, dims=1)[:, 2 * L :]
    segments = items.view(2, 3, L)
    network = rec2pm(config)
    with torch.inference_mode():
        _, references = network.references(items)
        _, second = network.fold(references[:, 0], segments[:, 0, L - config.options.overlap :], segments[:, 1])
        expected = {}
        for rollout, memory in ((0.0, references[:, 1]), (1.0, second)):
            hidden, third = network.fold(memory, segments[:, 1, L - config.options.overlap :], segments[:, 2])
            next_item = network.next_item_loss(hidden[:, 1:].flatten(0, 1), targets[:, 2 * L :].flatten(), negatives)
            expected[rollout] = (
                next_item,
                network.consistency_loss(references[:, 1:], torch.stack([second, third], dim=1)),
            )
        assert all(abs(a - b) > 1e-4 for a, b in zip(expected[0.0], expected[1.0], strict=True))
        for rollout, (next_item, consistency) in expected.items():
            found = rec2pm(tiny.changed(config, rollout=rollout)).losses(items, targets, negatives)
            torch.testing.assert_close(found.next_item, next_item, atol=1e-5, rtol=0)
            torch.testing.assert_close(found.consistency, consistency, atol=1e-5, rtol=0)


@pytest.mark.parametrize("backbone", ["sasrec", "hstu"])
@pytest.mark.parametrize("kind", ["rec2pm-a", "tok-serial-a"])
def test_with_accumulation_a_fold_reads_the_memories_before_it_and_the_oldest_makes_room(
    kind: str, backbone: str
) -> None:
    config = tiny.config(kind, backbone)
    network, program = tiny.network(config=config), torchscript.script(tiny.serving(config=config))
    assert isinstance(network, MemoryNetwork)
    items, lengths = tiny.rows(2, 6 * L).view(2, 6, L), torch.full((2,), L)
    state, written = program.initial_memory(2), list[Tensor]()
    with torch.inference_mode():
        for h in range(6):
            before = torch.cat(written[-config.folds_kept :], dim=1) if written else torch.zeros(2, 0, 16)
            hidden, memory = network.fold(before, items[:, h, :0], items[:, h])
            state, last = program.update(state, items[:, h], lengths)
            written.append(memory)
            held = torch.cat(written[-config.folds_kept :], dim=1)
            torch.testing.assert_close(state[:, : held.size(1)], held, atol=5e-6, rtol=0)
            assert not state[:, held.size(1) :].any()
            torch.testing.assert_close(last, hidden[:, -1], atol=5e-6, rtol=0)


def test_absent_memories_are_not_seen() -> None:
    """Training pads on the left where serving leaves out."""
    network = rec2pm(tiny.config("rec2pm-a", "sasrec"))
    memory, items = torch.randn(2, 9, 16), tiny.rows(2, L)
    present = torch.tensor([[False] * 6 + [True] * 3] * 2)
    with torch.inference_mode():
        hidden, written = network.fold(memory, items[:, :0], items, present)
        short_hidden, short_written = network.fold(memory[:, 6:], items[:, :0], items)
    torch.testing.assert_close(written, short_written, atol=5e-6, rtol=0)
    torch.testing.assert_close(hidden, short_hidden, atol=5e-6, rtol=0)
