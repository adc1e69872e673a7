"""What the oracle says of a trained version is what a worker makes of it: one user at a time, and in batches."""

import random
from dataclasses import replace
from pathlib import Path

import pytest

from model.version.runtime import Runtime
from tests.crash.evidence import FROM, observed
from tests.crash.oracle import judge
from tests.crash.replay import Rules
from tests.fakes import FakeRecord, said
from tests.model import tiny
from tests.soak.program import ProgramVersion


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two versions of different memory formats."""
    registry = tmp_path_factory.mktemp("models")
    return [Path(tiny.add(registry, seed=seed).uri) for seed in (0, 1)]


def test_what_the_step_makes_of_trained_versions_is_right(folders: list[Path], tmp_path: Path) -> None:
    first, second = (Runtime.load(folder) for folder in folders)
    programs = [ProgramVersion(folder) for folder in folders]
    assert len({program.memory_format for program in programs}) == 2
    found = observed(played(), list(range(0, 1200, 7)), tmp_path, first, {60: second, 100: first, 140: second})
    rules = Rules(
        {program.reference: program for program in programs},
        programs[0].reference,
        tiny.L,
        3,
        5,
        2,
        tolerance=1e-4,
        serves_within_ms=0,
        in_order=True,
    )
    verdict = judge(found, rules)
    assert verdict.holds, verdict.examples
    assert verdict.lists > 200
    assert {row["memory_format"] for row in found.states} >= {programs[1].memory_format}
    exact = judge(found, replace(rules, tolerance=0.0))
    assert exact.differing > 0, "batches of other sizes add in another order"
    swapped = {programs[0].reference: programs[1], programs[1].reference: programs[0]}
    assert judge(found, replace(rules, versions=swapped)).differing > 100


def played() -> list[FakeRecord]:
    """Interactions of a few users over two partitions, some with unknown items."""
    chosen = random.Random(0)
    made, offsets = [], [0, 0]
    for _ in range(1200):
        partition = chosen.randrange(2)
        user = f"user-{partition}-{chosen.randrange(6)}".encode()
        value = said(chosen.choice([*tiny.IDS, "unknown"]), FROM[0] + chosen.randrange(10_000))
        made.append(FakeRecord(user, value, partition, offsets[partition]))
        offsets[partition] += 1
    return made
