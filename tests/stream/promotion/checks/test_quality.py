"""What a measured drop in NDCG@10 says about a candidate."""

import pytest

from model.evaluation.drop import Drop
from model.version.runtime import Runtime
from stream.promotion.checks.quality import judged, quality
from tests.model import tiny
from tests.stream.promotion.logs import predicted_by

CASES = {
    "the same, enough of them": (Drop(5000, 0.15, 0.15, -0.005, 0.005), "passed", "at most 0.0050 lower"),
    "better": (Drop(5000, 0.15, 0.20, -0.06, -0.04), "passed", "0.0500 higher"),
    "a little worse, and certain of it": (Drop(50_000, 0.15, 0.143, 0.006, 0.008), "passed", "0.0070 lower"),
    "certainly worse": (Drop(5000, 0.15, 0.10, 0.04, 0.06), "failed", "with 95 % certainty at least 0.0400 lower"),
    "the same, and uncertain": (Drop(1000, 0.15, 0.15, -0.014, 0.014), "failed", "about 2,000 would show it"),
    "a little worse, and uncertain": (Drop(1000, 0.15, 0.145, -0.01, 0.02), "failed", "about 9,000 would show it"),
    "perhaps worse than allowed": (Drop(1000, 0.15, 0.135, 0.005, 0.025), "failed", "more of them would not show it"),
    "too few, whatever they say": (Drop(299, 0.15, 0.15, 0.0, 0.0), "failed", "299 targets are too few to show that"),
    "just enough": (Drop(300, 0.15, 0.15, 0.0, 0.0), "passed", "0.01 may be lost"),
}


@pytest.mark.parametrize(("found", "result", "words"), CASES.values(), ids=list(CASES))
def test_the_candidate_has_to_show_that_it_is_not_much_worse(found: Drop, result: str, words: str) -> None:
    said = judged(found, 0.01)
    assert said.result == result
    assert words in said.figure


def test_a_larger_limit_needs_fewer_targets() -> None:
    found = Drop(150, 0.15, 0.15, -0.03, 0.03)
    assert [judged(found, limit).result for limit in (0.01, 0.02, 0.029, 0.03)] == ["failed"] * 3 + ["passed"]


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> list[Runtime]:
    root = tmp_path_factory.mktemp("registry")
    return [Runtime.load(tiny.add(root, seed=seed).uri) for seed in (0, 0, 1)]


def test_the_champion_is_compared_on_what_users_did_next(versions: list[Runtime]) -> None:
    champion, twin, other = versions
    log = predicted_by(champion, 400).lazy()
    same = quality(log, champion, twin, 0.01)
    assert same.result == "passed"
    assert same.figure.startswith("NDCG@10 1.0000, the champion's 1.0000: 0.0000 higher, with 95 % certainty at least")
    assert "(400 targets: the newest 10% of the log; tiny@1 does not say what it was trained on" in same.figure
    worse = quality(log, champion, other, 0.01)
    assert worse.result == "failed"
    assert "it is worse than the 0.01 that may be lost" in worse.figure
    assert quality(log, other, champion, 0.01).result == "passed", "the other way round it is better"


def test_a_few_users_show_a_large_difference_and_no_small_one(versions: list[Runtime]) -> None:
    champion, twin, other = versions
    log = predicted_by(champion, 40).lazy()
    assert "40 targets are too few" in quality(log, champion, twin, 0.01).figure
    assert quality(log, champion, twin, 0.1).result == "passed"
    assert quality(log, champion, other, 0.1).result == "failed"


def test_a_log_without_a_next_item_is_a_failed_check(versions: list[Runtime]) -> None:
    champion, twin, _ = versions
    found = quality(predicted_by(champion, 1).head(1).lazy(), champion, twin, 0.01)
    assert found.result == "failed"
    assert found.figure.startswith("nothing can be compared: the log has one interaction")
