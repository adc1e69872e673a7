"""The contract the worker relies on, on the scripted network reloaded from disk."""

import pytest
import torch
from torch import Tensor

from model import artifact
from model.artifact import Program
from model.network import NetworkConfig
from model.serving import Serving
from tests.model import tiny

L = tiny.CONFIG.segment_length
V = tiny.CONFIG.n_items


@pytest.fixture(scope="module")
def memory(program: Program) -> Tensor:
    """Memories of six users, the even ones unknown."""
    written: Tensor = program.update(program.initial_memory(6), tiny.rows(6, L, seed=3), torch.full((6,), L))[0]
    return written * (torch.arange(6) % 2)[:, None, None]


LENGTHS = torch.tensor([0, 0, 1, L, L - 2, 5])


def test_the_spec_says_what_the_tensors_are(program: Program) -> None:
    spec = program.spec()
    assert spec["state_floats"] == program.initial_memory(1).numel() == tiny.CONFIG.slots * tiny.CONFIG.d
    assert (spec["n_items"], spec["segment_length"], spec["needs_fold"]) == (V, L, 1)


def test_nobody_sees_who_else_is_in_the_batch(program: Program, memory: Tensor) -> None:
    items = tiny.rows(6, L)
    with torch.inference_mode():
        rows, scores = program.recommend(memory, items, LENGTHS, 10)
        folded, hidden = program.update(memory, items, LENGTHS.clamp(min=1))
        for b in range(6):
            one = slice(b, b + 1)
            alone_rows, alone_scores = program.recommend(memory[one], items[one], LENGTHS[one], 10)
            assert torch.equal(alone_rows[0], rows[b])
            torch.testing.assert_close(alone_scores[0], scores[b], atol=5e-6, rtol=0)
            alone_memory, alone_hidden = program.update(memory[one], items[one], LENGTHS[one].clamp(min=1))
            torch.testing.assert_close(alone_memory[0], folded[b], atol=5e-6, rtol=0)
            torch.testing.assert_close(alone_hidden[0], hidden[b], atol=5e-6, rtol=0)


def test_scores_descend_and_rows_are_of_the_catalogue(program: Program, memory: Tensor) -> None:
    rows, scores = program.recommend(memory, tiny.rows(6, L), LENGTHS, V)
    assert (scores[:, 1:] <= scores[:, :-1]).all()
    assert torch.equal(rows.sort(dim=1).values, torch.arange(1, V + 1).expand(6, -1))


def test_excluded_items_are_left_out_before_the_best_are_taken(program: Program, memory: Tensor) -> None:
    items = tiny.rows(6, L)
    everything, scores = program.recommend(memory, items, LENGTHS, V)
    exclude = torch.cat([everything[:, :4], everything[:, 6:7], torch.zeros(6, 1, dtype=torch.int64), torch.full((6, 1), V + 1)], dim=1)
    rows, found = program.recommend(memory, items, LENGTHS, 5, None, None, exclude)
    assert torch.equal(rows, everything[:, [4, 5, 7, 8, 9]])
    assert torch.equal(found, scores[:, [4, 5, 7, 8, 9]])


def test_an_excluded_item_comes_out_only_when_the_catalogue_is_exhausted(program: Program, memory: Tensor) -> None:
    exclude = torch.arange(3, V + 1).expand(6, -1)
    rows, scores = program.recommend(memory, tiny.rows(6, L), LENGTHS, 5, None, None, exclude)
    assert ((rows >= 1) & (rows <= V)).all()
    assert torch.equal(rows[:, :2].sort(dim=1).values, torch.tensor([[1, 2]]).expand(6, -1))
    assert torch.isfinite(scores[:, :2]).all()
    assert (scores[:, 2:] == float("-inf")).all()


def test_a_list_is_never_longer_than_the_catalogue(program: Program, memory: Tensor) -> None:
    rows, scores = program.recommend(memory, tiny.rows(6, L), LENGTHS, V + 7)
    assert rows.shape == scores.shape == (6, V)


def test_equal_scores_come_in_the_order_of_their_rows(program: Program) -> None:
    """Popularity is equal for two rows at a time, and row 1 for itself; k cuts a pair in two."""
    rows, scores = program.recommend(program.initial_memory(2), torch.zeros(2, 3, dtype=torch.int64), torch.zeros(2, dtype=torch.int64), 6)
    assert torch.equal(rows, torch.arange(1, 7).expand(2, -1))
    assert scores[0, 1] == scores[0, 2] > scores[0, 3]


def test_the_order_of_equal_scores_is_fixed_however_many_there_are() -> None:
    """Seven values over 2,000 items for an unknown user, three item vectors for the others; k cuts through the ties."""
    config = NetworkConfig(n_items=2_000, segment_length=L, d=16, layers=1, heads=2)
    popularity = torch.randint(0, 7, (2_001,), generator=torch.Generator().manual_seed(0)).float()
    network = tiny.network(config=config)
    with torch.no_grad():
        network.item.weight[1:] = network.item.weight[1:4].repeat(667, 1)
    program = artifact.script(Serving(network, popularity))
    hidden = torch.randn(3, 16, generator=torch.Generator().manual_seed(1))
    hidden[0] = 0
    everything, scores = program.rank(hidden, 2_000, None)
    for rows_of_one, scores_of_one in zip(everything.tolist(), scores.tolist(), strict=True):
        pairs = [(-score, row) for row, score in zip(rows_of_one, scores_of_one, strict=True)]
        assert pairs == sorted(pairs)
    for k in (1, 3, 10, 250):
        assert torch.equal(program.rank(hidden, k, None)[0], everything[:, :k])


@pytest.mark.parametrize("k", [1, 2, 5, 17, 60])
def test_of_two_equal_items_at_the_end_of_a_list_the_one_with_the_lower_row_is_in_it(k: int) -> None:
    network = tiny.network(config=NetworkConfig(n_items=2_000, segment_length=L, d=16, layers=1, heads=2))
    for seed in range(10):
        popularity = torch.randperm(2_001, generator=torch.Generator().manual_seed(seed)).float()
        order = popularity[1:].argsort(descending=True) + 1
        popularity[order[k]] = popularity[order[k - 1]]
        rows, _ = Serving(network, popularity).rank(torch.zeros(1, 16), k)
        assert rows[0].tolist() == [*order[: k - 1].tolist(), min(order[k - 1 : k + 1].tolist())]


def test_a_user_nothing_is_known_about_gets_the_popular_items_less_the_excluded(program: Program) -> None:
    nothing = torch.zeros(1, dtype=torch.int64)
    for n in (0, 4):
        rows, scores = program.recommend(
            program.initial_memory(1), torch.zeros(1, n, dtype=torch.int64), nothing, 4, None, None, torch.tensor([[2, 0]])
        )
        assert rows.tolist() == [[1, 3, 4, 5]]
        torch.testing.assert_close(scores[0], tiny.popularity()[rows[0]])


def test_memory_without_items_gives_a_list_of_its_own(program: Program, memory: Tensor) -> None:
    known = memory[1::2]
    lists = [program.recommend(known, torch.zeros(3, n, dtype=torch.int64), torch.zeros(3, dtype=torch.int64), 10) for n in (0, 5)]
    assert torch.equal(lists[0][0], lists[1][0])
    assert torch.isfinite(lists[0][1]).all()
    assert not torch.equal(lists[0][0][0], lists[0][0][1])
    assert lists[0][0][0].tolist() != list(range(1, 11))


def test_ranking_from_the_hidden_state_of_a_fold_equals_recommending_from_the_segment(program: Program, memory: Tensor) -> None:
    items, lengths = tiny.rows(6, L), torch.full((6,), L)
    _, hidden = program.update(memory, items, lengths)
    rows, scores = program.rank(hidden, 10, items)
    want_rows, want_scores = program.recommend(memory, items, lengths, 10, None, None, items)
    assert torch.equal(rows, want_rows)
    torch.testing.assert_close(scores, want_scores, atol=5e-6, rtol=0)


def test_score_and_query_agree_with_the_list(program: Program, memory: Tensor) -> None:
    items = tiny.rows(6, L)
    rows, scores = program.recommend(memory, items, LENGTHS, 10)
    torch.testing.assert_close(program.score(memory, items, LENGTHS, rows), scores, atol=1e-6, rtol=0)
    assert (program.score(memory, items, LENGTHS, torch.tensor([[0, V + 1]]).expand(6, -1)) == float("-inf")).all()
    norms = program.query(memory, items, LENGTHS).norm(dim=1)
    torch.testing.assert_close(norms, torch.tensor([0.0, 1, 1, 1, 1, 1]))


def test_unknown_items_are_read_and_never_recommended(program: Program, memory: Tensor) -> None:
    unknown = torch.full((6, 4), V + 1)
    lengths = torch.full((6,), 4)
    rows, scores = program.recommend(memory, unknown, lengths, V)
    assert rows.max() == V
    assert torch.isfinite(scores).all()
    assert not torch.allclose(program.query(memory, unknown, lengths), program.query(memory, torch.ones_like(unknown), lengths))


def test_no_call_changes_the_program_or_its_arguments(program: Program, memory: Tensor) -> None:
    items = tiny.rows(6, L)
    before = (memory.clone(), items.clone())
    # Frozen weights are constants; the same program before freezing has them to look at.
    thawed = artifact.script(Serving(tiny.network(), tiny.popularity()))
    sha256 = artifact.weights_sha256(thawed)
    for called in (program, thawed):
        first, again = (
            (*called.update(memory, items, LENGTHS.clamp(min=1)), *called.recommend(memory, items, LENGTHS, 7, None, None, items))
            for _ in range(2)
        )
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert artifact.weights_sha256(thawed) == sha256
    assert torch.equal(memory, before[0])
    assert torch.equal(items, before[1])
