"""What has to hold between training and serving (MODEL.md §4.2), on the scripted network reloaded from disk."""

import pytest
import torch
from torch import Tensor

from model import loss
from model.artifact import Program
from model.loss import consistency_loss, losses, sampled_softmax
from model.network import NetworkConfig, Rec2PM
from tests.model import tiny

L = tiny.CONFIG.segment_length
V = tiny.CONFIG.n_items


def _lengths(items: Tensor) -> Tensor:
    return torch.full((len(items),), items.size(1))


def test_reference_memories_equal_compressing_the_whole_history_at_once(program: Program) -> None:
    items = tiny.rows(4, 3 * L)
    with torch.inference_mode():
        _, references = tiny.network().references(items)
        for h in range(3):
            prefix = items[:, : (h + 1) * L]
            at_once, _ = program.update(program.initial_memory(4), prefix, _lengths(prefix))
            torch.testing.assert_close(at_once, references[:, h], atol=2e-6, rtol=0)


def test_the_first_fold_gives_the_reference_memory_and_hidden_state(program: Program) -> None:
    items = tiny.rows(4, 2 * L)
    with torch.inference_mode():
        hidden, references = tiny.network().references(items)
        memory, last = program.update(program.initial_memory(4), items[:, :L], _lengths(items[:, :L]))
    torch.testing.assert_close(memory, references[:, 0], atol=2e-6, rtol=0)
    torch.testing.assert_close(last, hidden[:, L - 1], atol=2e-6, rtol=0)


@pytest.mark.parametrize("known", [False, True])
def test_right_padding_changes_nothing(program: Program, known: bool) -> None:
    items = tiny.rows(3, L)
    memory = program.initial_memory(3)
    with torch.inference_mode():
        if known:
            memory, _ = program.update(memory, tiny.rows(3, L, seed=1), _lengths(items))
        for n in (1, 5, L - 1):
            padded = items.clone()
            padded[:, n:] = 0
            exact, short = torch.full((3,), n), items[:, :n]
            for got, want in zip(program.update(memory, padded, exact), program.update(memory, short, exact), strict=True):
                torch.testing.assert_close(got, want, atol=5e-6, rtol=0)
            torch.testing.assert_close(program.query(memory, padded, exact), program.query(memory, short, exact), atol=5e-6, rtol=0)


def test_what_stands_in_the_padding_does_not_matter(program: Program) -> None:
    items, lengths = tiny.rows(3, L), torch.tensor([2, 7, L - 1])
    memory = program.update(program.initial_memory(3), tiny.rows(3, L, seed=1), _lengths(items))[0]
    other = torch.where(torch.arange(L) < lengths[:, None], items, (items % V) + 1)
    with torch.inference_mode():
        torch.testing.assert_close(program.query(memory, items, lengths), program.query(memory, other, lengths), atol=5e-6, rtol=0)
        for got, want in zip(program.update(memory, items, lengths), program.update(memory, other, lengths), strict=True):
            torch.testing.assert_close(got, want, atol=5e-6, rtol=0)


def test_folding_in_parallel_equals_folding_one_after_another_from_the_references(program: Program) -> None:
    items = tiny.rows(2, 4 * L)
    network = tiny.network()
    with torch.inference_mode():
        _, references = network.references(items)
        segments = items.view(2, 4, L)
        hidden, written = network.fold(references[:, :-1].flatten(0, 1), segments[:, 1:].flatten(0, 1))
        for h in range(1, 4):
            memory, last = program.update(references[:, h - 1], segments[:, h], torch.full((2,), L))
            torch.testing.assert_close(written.view(2, 3, *memory.shape[1:])[:, h - 1], memory, atol=5e-6, rtol=0)
            torch.testing.assert_close(hidden.view(2, 3, 1 + L, -1)[:, h - 1, -1], last, atol=5e-6, rtol=0)
            empty = torch.zeros(2, dtype=torch.int64)
            alone = program.query(references[:, h - 1], segments[:, h], empty)
            torch.testing.assert_close(
                torch.nn.functional.normalize(hidden.view(2, 3, 1 + L, -1)[:, h - 1, 0], dim=1), alone, atol=5e-6, rtol=0
            )


def test_a_reference_memory_does_not_depend_on_later_segments() -> None:
    network, items = tiny.network(), tiny.rows(2, 3 * L)
    other = items.clone()
    other[:, 2 * L :] = (items[:, 2 * L :] % V) + 1
    with torch.inference_mode():
        hidden, references = network.references(items)
        hidden_other, references_other = network.references(other)
    torch.testing.assert_close(references[:, :2], references_other[:, :2], atol=0, rtol=0)
    torch.testing.assert_close(hidden[:, : 2 * L], hidden_other[:, : 2 * L], atol=0, rtol=0)
    assert not torch.allclose(references[:, 2], references_other[:, 2])


def test_predicting_the_next_item_teaches_the_write_vectors() -> None:
    network = tiny.network()
    items = tiny.rows(3, 2 * L)
    found = losses(network, items, items.roll(-1, dims=1), torch.arange(1, 21))
    (gradient,) = torch.autograd.grad(found.next_item, network.write)
    assert gradient.abs().max() > 0


def test_every_row_predicts_the_item_after_it_and_the_last_memory_slot_the_first_of_its_segment(monkeypatch: pytest.MonkeyPatch) -> None:
    history = tiny.rows(1, 2 * L + 4).clamp(max=V)
    items, targets = torch.zeros(2, 1, 3 * L, dtype=torch.int64).unbind(0)
    items[:, : 2 * L + 3], targets[:, : 2 * L + 3] = history[:, :-1], history[:, 1:]
    seen: list[Tensor] = []

    def note(network: Rec2PM, hidden: Tensor, wanted: Tensor, negatives: Tensor) -> Tensor:
        seen.append(wanted)
        return sampled_softmax(network, hidden, wanted, negatives)

    monkeypatch.setattr(loss, "sampled_softmax", note)
    losses(tiny.network(), items, targets, torch.arange(1, 5))
    first, second, third = history[0, 1 : L + 1], history[0, L : 2 * L + 1], history[0, 2 * L :]
    assert torch.equal(seen[0], torch.cat([first, second, third]))


def test_the_consistency_loss_does_not_move_its_target() -> None:
    reference = torch.randn(4, 3, 16, requires_grad=True)
    written = torch.randn(4, 3, 16, requires_grad=True)
    consistency_loss(reference, written).backward()  # type: ignore[no-untyped-call]
    assert reference.grad is None
    assert written.grad is not None
    assert written.grad.abs().max() > 0


def test_the_consistency_loss_is_a_mean_over_full_later_segments() -> None:
    network = tiny.network()
    items = tiny.rows(2, 3 * L)
    items[1, L:] = 0
    items[0, 2 * L + 3 :] = 0
    _, references = network.references(items)
    _, written = network.fold(references[:1, 0], items[:1, L : 2 * L])
    found = losses(network, items, torch.zeros_like(items).index_fill(1, torch.tensor([0]), 1), torch.arange(2, 5))
    torch.testing.assert_close(found.consistency, ((written - references[:1, 1]) ** 2).mean(), atol=1e-6, rtol=1e-5)


def test_a_history_of_one_segment_has_no_consistency_loss() -> None:
    items = tiny.rows(2, L)
    assert losses(tiny.network(), items, items.roll(-1, dims=1), torch.arange(1, 5)).consistency == 0


def test_a_negative_that_is_the_target_is_left_out() -> None:
    network, hidden, target = tiny.network(), torch.randn(1, 16), torch.tensor([7])
    with_collision = sampled_softmax(network, hidden, target, torch.tensor([3, 7, 9]))
    torch.testing.assert_close(with_collision, sampled_softmax(network, hidden, target, torch.tensor([3, 9])))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"d": 10, "heads": 4}, "multiple of heads"),
        ({"dropout": 1.0}, "dropout"),
        ({"n_items": 0}, "n_items"),
        ({"temperature": 0.0}, "temperature"),
    ],
)
def test_a_network_that_cannot_be_is_refused(wrong: dict[str, float], message: str) -> None:
    values = {"n_items": 10, "segment_length": 5} | wrong
    with pytest.raises(ValueError, match=message):
        NetworkConfig(**values)  # type: ignore[arg-type]
