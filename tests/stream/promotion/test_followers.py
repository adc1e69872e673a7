"""Which workers serve what is promoted, judged from their reports and the group."""

from typing import Any

import pytest

from stream.commands.models.status import status_json, status_lines, summary
from stream.promotion.followers import OLD_MS, Followers, followers
from stream.promotion.record import CHAMPION, Models, Report, alias_key, encode, promotion_key, worker_key
from tests.stream.promotion.promotions import NOON, promotion, report

OLD = promotion("films@7")
NEW = promotion("films@8", after=OLD)
OTHER = promotion("films@9", alias="challenger")


def judged(members: dict[str, int] | None, *reports: Report, promoted: bool = True, now_ms: int = NOON) -> Followers:
    models = Models()
    for each in (OLD, NEW, OTHER) if promoted else (OTHER,):
        models.apply(promotion_key(each.id), encode(each))
        models.apply(alias_key(each.alias), encode(each))
    for each_report in reports:
        models.apply(worker_key(each_report.worker), encode(each_report))
    return followers(models, CHAMPION, members, now_ms)


ON_OLD: dict[str, Any] = {"of": NEW.version, "of_promotion": NEW.id}


@pytest.mark.parametrize(
    ("given", "in_group", "doing", "fits", "why"),
    [
        (report("w", NEW), True, "serving", True, None),
        (report("w", NEW, promotion="", source="configured"), True, "serving", True, None),
        (report("w", NEW), False, "gone", None, "not in the group, and did not stop cleanly"),
        (report("w", OLD, state="loading", **ON_OLD), True, "loading", False, "it loads films@8"),
        (report("w", OLD, state="loading", **ON_OLD), False, "loading", None, "not in the group; it loads films@8"),
        (report("w", None, **ON_OLD), False, "waiting", None, "not in the group; it waits for films@8"),
        (
            report("w", OLD, state="refused", why="other lists", **ON_OLD),
            True,
            "refused",
            False,
            "it refuses films@8: other lists",
        ),
        (report("w", OLD, state="refused", why="other lists", **ON_OLD), False, "gone", None, "not in the group"),
        (report("w", OLD), True, "serving", False, "has not read the promotion of films@8 yet"),
        (report("w", OLD, source="configured", promotion=""), True, "serving", False, "REC2PM_FOLLOW=none"),
        (
            report("w", OLD, source="local", why="no answer", **ON_OLD),
            True,
            "serving",
            False,
            "it does not serve films@8: no answer",
        ),
        (report("w", OTHER), True, "serving", None, "it follows challenger"),
        # The number is the same, the bytes are not: somebody made the registry again.
        (report("w", NEW, sha256="f" * 64), True, "serving", False, "has not read the promotion"),
        (None, True, "no report", False, "there is no report"),
    ],
)
def test_a_worker_beside_what_it_should_serve(
    given: Report | None, in_group: bool, doing: str, fits: bool | None, why: str | None
) -> None:
    found = judged({"w": 2} if in_group else {}, *([] if given is None else [given]))
    (only,) = found.workers
    assert (only.doing, only.fits, only.partitions) == (doing, fits, 2 if in_group else None)
    assert (only.why is None) if why is None else (why in (only.why or ""))
    assert found.settled is (fits is True)


def test_it_is_settled_when_each_worker_of_the_group_serves_it() -> None:
    gone, other = report("gone", OLD), report("other", OTHER)
    assert judged({"a": 1, "b": 0, "other": 1}, report("a", NEW), report("b", NEW), gone, other).settled
    assert not judged({"a": 1, "b": 0}, report("a", NEW), report("b", OLD)).settled
    assert not judged({}, report("a", NEW)).settled, "nobody serves it"
    assert not judged({"a": 1}, report("a", OLD), promoted=False).settled, "nothing is promoted"


def test_where_kafka_does_not_say_who_is_there_each_report_counts() -> None:
    assert judged(None, report("a", NEW), report("b", NEW)).settled
    found = judged(None, report("a", NEW), report("b", OLD))
    assert [(each.doing, each.fits, each.partitions) for each in found.workers] == [
        ("serving", True, None),
        ("serving", False, None),
    ]
    assert (
        "this broker does not say who is in the group: a worker that was killed counts" in list(status_lines(found))[-2]
    )


def test_workers_that_are_gone_for_long_are_only_counted() -> None:
    reports = [report(name, OLD) for name in ("alive", "gone")]
    assert judged({"alive": 1}, *reports, now_ms=NOON + OLD_MS).old == 0
    found = judged({"alive": 1}, *reports, now_ms=NOON + OLD_MS + 1)
    assert (found.old, [each.worker for each in found.workers]) == (1, ["alive"])


def test_lines_say_who_does_not_serve_it_and_why() -> None:
    found = judged(
        {"a": 2, "b": 1},
        report("a", NEW),
        report("b", OLD, state="refused", why="p95 is NaN", **ON_OLD),
        report("c", OLD),
    )
    assert list(status_lines(found)) == [
        "champion is films@8: ada@laptop promoted films@8 at 2026-11-30T12:01:00Z",
        "WORKER  PARTITIONS  SERVES   STATE    SINCE",
        "a                2  films@8  serving  2026-11-30T12:00:00Z",
        "b                1  films@7  refused  2026-11-30T12:00:00Z",
        "    it refuses films@8: p95 is NaN",
        "c                -  films@7  gone     2026-11-30T12:00:00Z",
        "    it is not in the group, and did not stop cleanly",
        "FAIL 1 of 2 workers of the group serve films@8",
    ]
    assert '"settled":false' in status_json(found)
    assert '"why":"it refuses films@8: p95 is NaN"' in status_json(found)


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (judged({"a": 1}, report("a", NEW)), "PASS 1 worker of the group serves films@8: all of them"),
        (judged({"a": 1, "b": 0}, report("a", NEW), report("b", NEW)), "PASS 2 workers of the group serve films@8"),
        (judged({}, report("a", NEW)), "no worker is in the group"),
        (judged({"a": 1}, promoted=False), "nothing is promoted as champion"),
    ],
)
def test_the_summary(found: Followers, said: str) -> None:
    assert summary(found).startswith(said)
