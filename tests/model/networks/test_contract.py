"""The contract the worker relies on, for every kind of model, on the scripted network reloaded from disk."""

from typing import Any

import pytest
import torch
from torch import Tensor

from model.errors import GoldenMismatch
from model.networks import kinds
from model.networks.config import NetworkConfig
from model.version import artifact, golden, torchscript
from model.version.torchscript import Program
from tests.model import tiny

L = tiny.L
V = tiny.V
LENGTHS = torch.tensor([0, 0, 1, L, L - 2, 5])


@pytest.fixture(scope="module", params=tiny.CASES, ids="-".join)
def config(request: pytest.FixtureRequest) -> NetworkConfig:
    return tiny.config(*request.param)


class Timed:
    """A program that uses time, told with every call when its items happened."""

    def __init__(self, program: Program) -> None:
        self._program = program

    def __getattr__(self, name: str) -> Any:
        return getattr(self._program, name)

    def update(self, memory: Tensor, items: Tensor, lengths: Tensor) -> Any:
        return self._program.update(memory, items, lengths, tiny.times_of(items))

    def recommend(
        self,
        memory: Tensor,
        items: Tensor,
        lengths: Tensor,
        k: int,
        times: None = None,
        at: None = None,
        exclude: Tensor | None = None,
    ) -> Any:
        return self._program.recommend(memory, items, lengths, k, tiny.times_of(items), None, exclude)


@pytest.fixture(scope="module")
def program(config: NetworkConfig, tmp_path_factory: pytest.TempPathFactory) -> Program:
    program = artifact.load(tiny.add(tmp_path_factory.mktemp("registry"), config=config).uri).program
    return Timed(program) if config.options.uses_time else program


@pytest.fixture
def untimed(program: Program) -> Program:
    """The program itself, which takes times only where it is given some."""
    return program._program if isinstance(program, Timed) else program


@pytest.fixture(scope="module")
def memory(program: Program) -> Tensor:
    """Memories of six users: one and two folds, the even users unknown."""
    lengths = torch.full((6,), L)
    with torch.inference_mode():
        once: Tensor = program.update(program.initial_memory(6), tiny.rows(6, L, seed=3), lengths)[0]
        twice: Tensor = program.update(once, tiny.rows(6, L, seed=4), lengths)[0]
    folds = torch.tensor([0, 1, 0, 2, 0, 1]).view(6, *[1] * (once.dim() - 1))
    return torch.where(folds == 0, 0.0, torch.where(folds == 1, once, twice))


def test_the_spec_says_what_the_tensors_are(program: Program, config: NetworkConfig) -> None:
    spec = program.spec()
    assert spec["state_floats"] == program.initial_memory(1).numel()
    assert (spec["n_items"], spec["d"], spec["segment_length"]) == (V, 16, L)
    assert spec["uses_time"] == (config.table().get("rel_bias") == "pos_time")
    window, slots, d = 4 * L, 3 * 16, 16
    expected = {
        "full": window,
        "trunc": L,
        "rec2pm-o": slots,
        "rec2pm-a": 3 * slots,
        "tok-serial-o": slots,
        "tok-serial-a": 3 * slots,
    }
    expected |= {"kv-mask-o": 6 * slots, "kv-mask-a": 18 * slots, "holomambarec": 3 * (2 * d * (16 + 3)) + d}
    assert spec["state_floats"] == (expected[config.kind] + (d if config.table().get("overlap") else 0)) * (
        3 if spec["uses_time"] else 1
    )


@pytest.mark.parametrize(
    ("kind", "backbone", "layers", "segments", "state_bytes"),
    [
        ("rec2pm-o", "sasrec", 4, 5, 1_024),
        ("rec2pm-a", "sasrec", 4, 5, 4_096),
        ("kv-mask-o", "hstu", 16, 5, 32_768),
        ("kv-mask-o", "sasrec", 4, 5, 8_192),
    ],
)
def test_a_state_has_the_published_size(kind: str, backbone: str, layers: int, segments: int, state_bytes: int) -> None:
    """docs/model-spec.md, "State size": d=64, C=4; read off the network and not off a table."""
    config = NetworkConfig.of_table(
        {
            "n_items": 9,
            "segment_length": 200,
            "kind": kind,
            "backbone": backbone,
            "layers": layers,
            "segments": segments,
        }
    )
    assert 4 * kinds.serving(kinds.build(config), torch.ones(10)).spec()["state_floats"] == state_bytes


def test_it_answers_as_its_network_did_and_as_no_other_does(untimed: Program, config: NetworkConfig) -> None:
    golden.check(untimed, golden.made(tiny.serving(config=config)))
    with pytest.raises(GoldenMismatch, match=r"of 'fold from no memory' differ from golden.json by"):
        golden.check(untimed, golden.made(tiny.serving(1, config)))


def test_an_all_zero_memory_is_the_unknown_user(program: Program, memory: Tensor) -> None:
    assert not program.initial_memory(2).any()
    assert memory[1::2].flatten(1).any(1).all()


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
    exclude = torch.cat(
        [everything[:, :4], everything[:, 6:7], torch.zeros(6, 1, dtype=torch.int64), torch.full((6, 1), V + 1)], dim=1
    )
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
    rows, scores = program.recommend(
        program.initial_memory(2), torch.zeros(2, 3, dtype=torch.int64), torch.zeros(2, dtype=torch.int64), 6
    )
    assert torch.equal(rows, torch.arange(1, 7).expand(2, -1))
    assert scores[0, 1] == scores[0, 2] > scores[0, 3]


def test_the_order_of_equal_scores_is_fixed_however_many_there_are() -> None:
    """Seven values over 2,000 items for an unknown user, three item vectors for the others; k cuts through the ties."""
    config = tiny.table(n_items=2_000, layers=1)
    popularity = torch.randint(0, 7, (2_001,), generator=torch.Generator().manual_seed(0)).float()
    network = tiny.network(config=config)
    with torch.no_grad():
        network.item.weight[1:] = network.item.weight[1:4].repeat(667, 1)
    program = torchscript.script(kinds.serving(network, popularity))
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
    network = tiny.network(config=tiny.table(n_items=2_000, layers=1))
    for seed in range(10):
        popularity = torch.randperm(2_001, generator=torch.Generator().manual_seed(seed)).float()
        order = popularity[1:].argsort(descending=True) + 1
        popularity[order[k]] = popularity[order[k - 1]]
        rows, _ = kinds.serving(network, popularity).rank(torch.zeros(1, 16), k)
        assert rows[0].tolist() == [*order[: k - 1].tolist(), min(order[k - 1 : k + 1].tolist())]


def test_a_user_nothing_is_known_about_gets_the_popular_items_less_the_excluded(program: Program) -> None:
    nothing = torch.zeros(1, dtype=torch.int64)
    for n in (0, 4):
        rows, scores = program.recommend(
            program.initial_memory(1),
            torch.zeros(1, n, dtype=torch.int64),
            nothing,
            4,
            None,
            None,
            torch.tensor([[2, 0]]),
        )
        assert rows.tolist() == [[1, 3, 4, 5]]
        torch.testing.assert_close(scores[0], tiny.popularity()[rows[0]])


def test_memory_without_items_gives_a_list_of_its_own_where_the_model_has_a_row_for_it(
    program: Program, memory: Tensor, config: NetworkConfig
) -> None:
    """KV-Mask has none: without an item its list is the popular items."""
    known = memory[1::2]
    lists = [
        program.recommend(known, torch.zeros(3, n, dtype=torch.int64), torch.zeros(3, dtype=torch.int64), 10)
        for n in (0, 5)
    ]
    assert torch.equal(lists[0][0], lists[1][0])
    assert torch.isfinite(lists[0][1]).all()
    if config.kind.startswith("kv-mask"):
        assert lists[0][0].tolist() == [list(range(1, 11))] * 3
    else:
        assert not torch.equal(lists[0][0][0], lists[0][0][1])
        assert lists[0][0][0].tolist() != list(range(1, 11))


def test_ranking_from_the_hidden_state_of_a_fold_equals_recommending_from_the_segment(
    program: Program, memory: Tensor
) -> None:
    items, lengths = tiny.rows(6, L), torch.full((6,), L)
    _, hidden = program.update(memory, items, lengths)
    rows, scores = program.rank(hidden, 10, items)
    want_rows, want_scores = program.recommend(memory, items, lengths, 10, None, None, items)
    assert torch.equal(rows, want_rows)
    torch.testing.assert_close(scores, want_scores, atol=5e-6, rtol=0)


def test_unknown_items_are_read_and_never_recommended(program: Program, memory: Tensor) -> None:
    unknown = torch.full((6, 4), V + 1)
    lengths = torch.full((6,), 4)
    rows, scores = program.recommend(memory, unknown, lengths, V)
    assert rows.max() == V
    assert torch.isfinite(scores).all()
    assert not torch.allclose(
        tiny.scores(program, memory, unknown, lengths), tiny.scores(program, memory, torch.ones_like(unknown), lengths)
    )


def test_no_call_changes_the_program_or_its_arguments(program: Program, memory: Tensor, config: NetworkConfig) -> None:
    items = tiny.rows(6, L)
    before = (memory.clone(), items.clone())
    sha256 = artifact.weights_sha256(program)
    first, again = (
        (
            *program.update(memory, items, LENGTHS.clamp(min=1)),
            *program.recommend(memory, items, LENGTHS, 7, None, None, items),
        )
        for _ in range(2)
    )
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert artifact.weights_sha256(program) == sha256
    assert torch.equal(memory, before[0])
    assert torch.equal(items, before[1])


@pytest.mark.parametrize("known", [False, True])
def test_right_padding_and_what_stands_in_it_change_nothing(program: Program, memory: Tensor, known: bool) -> None:
    # Sums over rows that are masked are taken in another order.
    users = slice(1, None, 2) if known else slice(0, None, 2)
    before, items = memory[users], tiny.rows(3, L)
    with torch.inference_mode():
        for n in (1, 5, L - 1):
            exact, short, other = torch.full((3,), n), items[:, :n], items.clone()
            other[:, n:] = 0
            for padded in (items, other):
                for got, want in zip(
                    program.update(before, padded, exact), program.update(before, short, exact), strict=True
                ):
                    torch.testing.assert_close(got, want, atol=1e-5, rtol=0)
                torch.testing.assert_close(
                    tiny.scores(program, before, padded, exact),
                    tiny.scores(program, before, short, exact),
                    atol=1e-5,
                    rtol=0,
                )


def test_the_number_of_threads_does_not_matter(program: Program, memory: Tensor) -> None:
    items = tiny.rows(6, L)
    with torch.inference_mode():
        one = program.update(memory, items, LENGTHS.clamp(min=1))
        torch.set_num_threads(2)
        try:
            two = program.update(memory, items, LENGTHS.clamp(min=1))
        finally:
            torch.set_num_threads(1)
    for got, want in zip(two, one, strict=True):
        torch.testing.assert_close(got, want, atol=5e-6, rtol=0)


def test_a_memory_matters_and_so_does_the_order_of_its_segments(program: Program, config: NetworkConfig) -> None:
    """Trunc's and the O kinds' memories are those of the newest segment: what came before it is read through it, or not
    at all.
    """
    first, second, items, lengths = (
        tiny.rows(3, L, seed=5),
        tiny.rows(3, L, seed=6),
        tiny.rows(3, 4, seed=7),
        torch.full((3,), L),
    )
    with torch.inference_mode():
        unknown = program.initial_memory(3)
        memories = [
            program.update(program.update(unknown, one, lengths)[0], other, lengths)[0]
            for one, other in ((first, second), (second, first))
        ]
        scores = [tiny.scores(program, each, items, torch.full((3,), 4)) for each in (unknown, *memories)]
    for one in range(3):
        for other in range(one):
            assert (scores[one] - scores[other]).abs().max() > 1e-4


def test_folding_on_after_the_state_is_full_goes_on(program: Program) -> None:
    """More folds than a window has segments: the stream does not end."""
    memory, lengths = program.initial_memory(2), torch.full((2,), L)
    with torch.inference_mode():
        for turn in range(9):
            before = memory
            memory, hidden = program.update(memory, tiny.rows(2, L, seed=turn), lengths)
            assert memory.isfinite().all()
            assert hidden.isfinite().all()
            assert not torch.equal(memory, before)
