"""How much two versions' lists have in common."""

from dataclasses import replace

import pytest

from model.version.runtime import Runtime
from stream.promotion.checks.lists import lists
from stream.promotion.newest import Newest
from tests.model import tiny
from tests.stream.promotion.logs import predicted_by

FIGURE = "of the champion's first 10 are in its lists too"


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> list[Runtime]:
    root = tmp_path_factory.mktemp("registry")
    return [
        *(Runtime.load(tiny.add(root, seed=seed).uri) for seed in (0, 0, 1)),
        Runtime.load(tiny.add(root, "timed", config=tiny.config("full", "pos_time")).uri),
    ]


def _newest(runtime: Runtime, users: int) -> Newest:
    log = predicted_by(runtime, users)
    return Newest("plays", *(tuple(log[name].to_list()) for name in ("user_id", "item_id", "timestamp")))


def test_the_same_weights_make_the_same_lists_and_others_do_not(versions: list[Runtime]) -> None:
    champion, twin, other, timed = versions
    newest = _newest(champion, 30)
    assert lists(newest, champion, twin).figure == f"100% {FIGURE} (30 users, for information)"
    for another in (other, timed):
        found = lists(newest, champion, another)
        assert found.result == "passed"
        assert 0 <= int(found.figure.partition("%")[0]) < 60
    assert lists(newest, timed, timed).figure.startswith("100%")


def test_items_that_the_versions_do_not_know_are_no_reason_to_fail(versions: list[Runtime]) -> None:
    champion, twin, _, _ = versions
    newest = replace(_newest(champion, 5), items=tuple(f"unheard-of-{at}" for at in range(50)))
    assert lists(newest, champion, twin).figure.startswith(f"100% {FIGURE} (5 users")


def test_so_many_users_are_compared_those_who_acted_last(
    versions: list[Runtime], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stream.promotion.checks.lists.USERS", 7)
    champion, twin, _, _ = versions
    assert "(7 users," in lists(_newest(champion, 30), champion, twin).figure


def test_a_topic_without_interactions_is_left_out(versions: list[Runtime]) -> None:
    found = lists(Newest("plays", (), (), ()), versions[0], versions[1])
    assert (found.result, found.figure) == ("left out", "the newest records of plays hold no interaction")
