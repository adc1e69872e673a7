"""One pass gives the hidden states after every prefix of the working memory: those that each prefix gives alone."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from model.errors import GoldenMismatch
from model.networks.config import NetworkConfig
from model.networks.serving import Ranker
from model.version import golden, torchscript
from model.version.torchscript import CONTRACT, Program
from tests.model import tiny

L, V = tiny.L, tiny.V
MOST_FOLDS = 5
"""More than any state holds."""
SMALL = 1e-5


def assert_rank_alike(found: Tensor, expected: Tensor) -> None:
    """Lists go by the directions of hidden states. Their lengths are up to 50, and with HSTU the last digits of numbers
    in between count: a norm divides by what is close to its eps.
    """
    torch.testing.assert_close(*(functional.normalize(each, dim=-1) for each in (found, expected)), atol=SMALL, rtol=0)


@pytest.fixture(scope="module", params=tiny.CASES, ids="-".join)
def config(request: pytest.FixtureRequest) -> NetworkConfig:
    return tiny.config(*request.param)


@pytest.fixture(scope="module")
def ranker(config: NetworkConfig) -> Ranker:
    return tiny.serving(config=config)


@pytest.fixture(scope="module")
def program(ranker: Ranker) -> Program:
    return torchscript.script(ranker)


def memory_after(ranker: Ranker, folds: int, seed: int) -> Tensor:
    """(1, …) after so many folds."""
    memory, rows = ranker.initial_memory(1), tiny.rows(1, folds * L, seed)
    for segment in rows.split(L, dim=1) if folds else ():
        memory, _ = ranker.update(memory, segment, torch.tensor([L]), tiny.times_of(segment))
    return memory


@settings(max_examples=20, deadline=None)
@given(
    folds=st.lists(st.integers(0, MOST_FOLDS), min_size=1, max_size=4),
    n=st.integers(1, L),
    filled=st.integers(0, 2**10),
    seed=st.integers(0, 2**20),
)
@torch.inference_mode()
def test_each_prefix_has_the_hidden_state_that_it_has_alone(
    ranker: Ranker, program: Program, folds: list[int], n: int, filled: int, seed: int
) -> None:
    memory = torch.cat([memory_after(ranker, count, seed + user) for user, count in enumerate(folds)])
    users = len(folds)
    lengths = 1 + (filled >> torch.arange(users)) % n
    items = tiny.rows(users, n, seed).masked_fill(torch.arange(n) >= lengths[:, None], 0)
    longest = ranker.longest_prefix(memory)
    assert torch.equal(program.longest_prefix(memory), longest)
    if not int(longest.max()):
        return
    found = ranker.encode_prefixes(memory, items)
    assert tuple(found.shape) == (users, n, ranker.d)
    assert_rank_alike(program.encode_prefixes(memory, items), found)
    for end in range(1, n + 1):
        meant = (lengths >= end) & (longest >= end)
        alone = ranker.encode(memory, items[:, :end], torch.full((users,), end))
        assert_rank_alike(found[meant, end - 1], alone[meant])


@torch.inference_mode()
def test_how_many_items_one_pass_takes(ranker: Ranker, config: NetworkConfig) -> None:
    """A working memory, unless the window of items that a model sees would slide, or times count."""
    memory = torch.cat([memory_after(ranker, folds, 1) for folds in range(MOST_FOLDS)])
    expected = {"full": [4 * L, 3 * L, 2 * L, L, 0], "trunc": [L, 0, 0, 0, 0]}.get(config.kind, [L] * MOST_FOLDS)
    assert ranker.longest_prefix(memory).tolist() == ([0] * MOST_FOLDS if config.options.uses_time else expected)


@torch.inference_mode()
def test_no_items_have_no_prefixes(program: Program) -> None:
    found = program.encode_prefixes(program.initial_memory(3), torch.zeros(3, 0, dtype=torch.int64))
    assert tuple(found.shape) == (3, 0, program.spec()["d"])


class Off:
    """A program whose prefixes are those of other users."""

    def __init__(self, sound: Program) -> None:
        self._sound = sound

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sound, name)

    def encode_prefixes(self, memory: Tensor, items: Tensor) -> Tensor:
        return self._sound.encode_prefixes(memory, items).flip(0)  # type: ignore[no-any-return]


def test_prefixes_that_give_other_lists_are_refused(program: Program, config: NetworkConfig) -> None:
    if config.options.uses_time:
        pytest.skip("it takes no prefixes")
    for asked in (lambda: golden.made(Off(program)), lambda: golden.check(Off(program), golden.made(program))):
        with pytest.raises(GoldenMismatch, match=r"by encode_prefixes, the list of '.*memory.*', user 0, differs from"):
            asked()


def test_a_program_without_prefixes_has_the_same_golden_lists(ranker: Ranker, program: Program) -> None:
    class Without:
        def __getattr__(self, name: str) -> Any:
            if name not in CONTRACT:
                raise AttributeError(name)
            return getattr(program, name)

    assert golden.check(Without(), golden.made(program)) == 0
    assert golden.check(program, golden.made(Without())) < SMALL
