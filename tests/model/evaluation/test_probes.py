"""Probes find what was built in: memories that matter, memories that are not read, and memories that are all the
same.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from model.evaluation import offline, probes
from model.evaluation.probes import Probes
from model.networks import kinds
from model.networks.memory_serving import MemoryServing
from model.networks.rec2pm import Rec2PM
from model.networks.serving import Ranker
from model.version.registry import Registry
from model.version.runtime import Runtime
from tests.model import tiny

L, V = tiny.L, tiny.V
USERS = 60


class OneSegment(MemoryServing):
    """Takes no more than a segment in a call."""

    def update(
        self, memory: Tensor, items: Tensor, lengths: Tensor, times: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        if items.size(1) > self.segment_length:
            raise RuntimeError(f"{items.size(1)} items: a segment has {self.segment_length}")
        read = self.network.item(items).mean(1)  # (B, d)
        return read[:, None].expand(-1, self.rows, -1).contiguous(), read


def _runtime(root: Path, serving: Ranker) -> Runtime:
    return Runtime.load(Registry(root).add(serving, tiny.manifest(serving), tiny.IDS).folder)


def _histories() -> list[np.ndarray]:
    """One to five folds and some; twenty users without any."""
    rng = np.random.default_rng(4)
    return [rng.integers(1, V + 1, n) for n in (*rng.integers(L, 6 * L, USERS), *rng.integers(0, L, 20))]


def _probed(runtime: Runtime) -> tuple[Probes, int]:
    """Probed with targets that are the best items by the users' own memories."""
    histories = _histories()
    times = (
        [1_700_000_000_000 + 86_400_000 * np.arange(len(each)) ** 2 for each in histories]
        if runtime.uses_time
        else None
    )
    targets = offline.rank(runtime, offline.fold(runtime, histories, times), histories, 1, times).rows[:, 0]
    done: list[int] = []
    found = probes.probe(runtime, histories, targets, 0, done.append, times)
    return found, sum(done)


@pytest.fixture(scope="module")
def probed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Probes, int]:
    return _probed(_runtime(tmp_path_factory.mktemp("read"), tiny.serving()))


def test_the_own_memory_is_found_to_matter(probed: tuple[Probes, int]) -> None:
    shuffled = probed[0].shuffled
    assert shuffled is not None
    assert shuffled.users == sum(len(history) > L and len(history) % L > 0 for history in _histories())
    assert (shuffled.ndcg_own.value, shuffled.hr_own.value) == (1.0, 1.0)
    assert shuffled.lost.value == pytest.approx(1.0 - shuffled.ndcg_others.value)
    assert shuffled.lost.low > 0
    assert [verdict.passed for verdict in probes.verdicts(probed[0])] == [True, True]


def test_everybody_is_reported_to_the_progress_bar_once(probed: tuple[Probes, int]) -> None:
    assert probed[1] == len(_histories())
    assert probed[0].users == USERS


def test_a_memory_that_is_not_read_is_found_to_be_of_no_use(tmp_path: Path) -> None:
    network = tiny.network()
    assert isinstance(network, Rec2PM)
    with torch.no_grad():
        network.read_gain.zero_()
    found, _ = _probed(_runtime(tmp_path, kinds.serving(network, tiny.popularity())))
    assert found.shuffled is not None
    assert (found.shuffled.lost.value, found.shuffled.p) == (0.0, 1.0)
    assert [verdict.passed for verdict in probes.verdicts(found)] == [True, False]


def test_a_memory_that_is_the_same_for_everybody_is_found_to_have_collapsed(tmp_path: Path) -> None:
    network = tiny.network()
    assert isinstance(network, Rec2PM)
    with torch.no_grad():
        for block in network.blocks:
            block.out.weight.zero_()  # type: ignore[union-attr]  # attention adds nothing: write rows never hear of the items
    found, _ = _probed(_runtime(tmp_path, kinds.serving(network, tiny.popularity())))
    assert found.variance_share == pytest.approx(0.0, abs=1e-9)
    assert [verdict.passed for verdict in probes.verdicts(found)] == [False, False]


def test_one_call_over_all_segments_differs_from_folding_them_and_the_more_the_more_folds(
    probed: tuple[Probes, int],
) -> None:
    found = probed[0]
    assert found.one_time is not None
    assert found.one_time.users == sum(len(history) >= 2 * L for history in _histories())
    assert found.one_time.ndcg_iterative.value == 1.0
    assert found.one_time.difference.ndcg_at_10.value == pytest.approx(found.one_time.ndcg_one_time.value - 1.0)
    assert sum(group.users for group in found.one_time.by_folds) == found.one_time.users
    ratios = [drift.ratio or 0.0 for drift in found.drift]
    assert [drift.folds for drift in found.drift][:3] == [1, 2, 3]
    assert ratios[0] < 1e-6 < 1e-3 < ratios[1] < ratios[2]
    assert all(drift.users >= probes.FEWEST_DRIFT_USERS for drift in found.drift)


def test_a_model_that_takes_no_more_than_a_segment_says_so(tmp_path: Path) -> None:
    network = tiny.network()
    assert isinstance(network, Rec2PM)
    found, _ = _probed(_runtime(tmp_path, OneSegment(network, tiny.popularity()).eval()))
    assert (found.one_time, found.drift) == (None, [])
    assert f"{2 * L} items: a segment has {L}" in str(found.one_time_refused)
    assert found.shuffled is not None


@pytest.mark.parametrize(("kind", "backbone"), tiny.CASES)
def test_every_kind_can_be_probed_and_its_memory_matters(tmp_path: Path, kind: str, backbone: str) -> None:
    found, done = _probed(_runtime(tmp_path, tiny.serving(config=tiny.config(kind, backbone))))
    assert done == len(_histories())
    assert found.shuffled is not None
    assert found.shuffled.lost.value > 0
    assert probes.verdicts(found)[1].passed


def test_memories_that_are_filled_differently_are_not_compared(tmp_path: Path) -> None:
    """Accumulating, one call over two segments is one fold; two calls are two."""
    found, _ = _probed(_runtime(tmp_path, tiny.serving(config=tiny.config("rec2pm-a", "sasrec"))))
    assert [drift.ratio is None for drift in found.drift][:2] == [False, True]


@pytest.mark.parametrize("backbone", ["sasrec", "pos_time"])
def test_a_history_is_the_same_in_one_call(tmp_path: Path, backbone: str) -> None:
    """With its times, where the model goes by them: everybody's target is their best item."""
    found, _ = _probed(_runtime(tmp_path, tiny.serving(config=tiny.config("full", backbone))))
    assert found.one_time is not None
    assert (found.one_time.ndcg_iterative.value, found.one_time.difference.ndcg_at_10.value) == (1.0, 0.0)
    assert found.shuffled is not None
    assert found.shuffled.ndcg_own.value == 1.0
    assert {drift.ratio for drift in found.drift} == {0.0}


def test_without_memories_there_is_nothing_to_check(runtime: Runtime) -> None:
    short = [history[: L - 1] for history in _histories()]
    found = probes.probe(runtime, short, np.ones(len(short), np.int64), 0, lambda _: None)
    assert (found.users, found.variance_share, found.shuffled, found.one_time, found.drift) == (0, None, None, None, [])
    assert [verdict.passed for verdict in probes.verdicts(found)] == [None, None]


def test_variance_is_between_users_not_between_numbers_of_folds() -> None:
    folds = np.repeat([1, 2, 3], 40)
    counting = np.repeat(folds[:, None], 8, axis=1).astype(np.float32)
    assert probes.variance_share(counting, folds) == 0.0
    apart = np.random.default_rng(0).normal(size=(120, 8)).astype(np.float32)
    assert probes.variance_share(apart, folds) == pytest.approx(1.0, abs=0.05)
    assert probes.variance_share(apart + 3, folds) == pytest.approx(0.1, abs=0.02)
    assert probes.variance_share(apart[:1], folds[:1]) is None
