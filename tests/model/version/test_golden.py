"""A version that an earlier build wrote still loads and answers the same.

The program of the golden version was written when the contract also had `query` and `score`, and `spec` had more keys.
Its files are those of manifest schema 2.
"""

from pathlib import Path

import numpy as np
import pytest

from model.version import artifact
from model.version.registry import Registry
from model.version.runtime import Runtime

REGISTRY = Registry(Path(__file__).parent / "golden" / "registry")


@pytest.fixture(scope="module")
def runtime() -> Runtime:
    return Runtime.load(REGISTRY.resolve("golden@1").folder)


def test_a_program_may_have_more_than_the_contract(runtime: Runtime) -> None:
    program = artifact._program(REGISTRY.resolve("golden@1").files()).program
    assert program.spec()["needs_fold"] == 1
    assert hasattr(program, "query")
    assert hasattr(program, "score")
    assert runtime.reference == "golden@1"
    assert runtime.item_ids == ["i1", "i2", "i3", "i4", "i5", "i6"]
    assert not runtime.uses_time


def test_the_first_version_still_folds_and_recommends_the_same(runtime: Runtime) -> None:
    folded = runtime.fold(np.zeros((1, 8), np.float32), np.array([[1, 2, 3]]))
    memory = [-0.78835565, 1.47798324, -1.03628469, 0.34665704, 0.12142306, 1.50216126, -0.35860831, -1.26497602]
    np.testing.assert_allclose(folded.memory, [memory], atol=1e-5)
    np.testing.assert_allclose(folded.hidden, [[-1.39627838, -0.17761958, 0.16233669, 1.41156113]], atol=1e-5)
    ranked = runtime.recommend(folded.memory, np.array([[4, 5]]), np.array([2]), 3, np.array([[4, 5]]))
    assert ranked.rows.tolist() == [[3, 2, 6]]
    np.testing.assert_allclose(ranked.scores, [[0.9450611, 0.19682929, -0.06065638]], atol=1e-5)
