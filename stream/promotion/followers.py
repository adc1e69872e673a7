"""Which workers serve what an alias names, judged from their reports and the members of their group. Pure values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from stream.promotion.record import Models, Promotion, Report

Doing: TypeAlias = Literal["serving", "loading", "refused", "waiting", "gone", "no report"]
"""What a worker does. `gone`: it is not in the group, and did not stop cleanly. `no report`: it is in the group, and
has not reported anything.
"""
OLD_MS: Final = 24 * 3_600_000
"""A worker that is gone and last reported before that is only counted: where the state folder is lost with the machine,
each start makes a new name.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Follower:
    """One worker. `partitions`: of the input, at the moment; None if it is not in the group, or that is not known."""

    worker: str
    partitions: int | None
    serves: str | None
    doing: Doing
    since_ms: int | None
    fits: bool | None
    """Whether it serves what the alias names; None if that is not asked of it: gone, or it follows another alias."""
    why: str | None = None
    """What keeps it from serving that, in words."""


@dataclass(frozen=True, slots=True)
class Followers:
    """The workers beside what they should serve. `old`: how many more are gone since more than a day."""

    alias: str
    promotion: Promotion | None
    workers: Sequence[Follower]
    old: int = 0
    group_known: bool = True
    """Whether Kafka says who is in the group. If not, every worker with a report counts as there."""

    @property
    def asked(self) -> list[Follower]:
        return [each for each in self.workers if each.fits is not None]

    @property
    def settled(self) -> bool:
        """True if every worker of the group serves what the alias names, and there is one."""
        return self.promotion is not None and bool(self.asked) and all(each.fits for each in self.asked)


def followers(models: Models, alias: str, members: Mapping[str, int] | None, now_ms: int) -> Followers:
    """Args:
    members: worker → its partitions, of the workers in the group; None if Kafka does not say.
    """
    promotion = models.aliases.get(alias)
    there: Mapping[str, int | None] = dict.fromkeys(models.workers) if members is None else members
    found = [
        _follower(name, models.workers.get(name), name in there, there.get(name), promotion, models)
        for name in sorted(models.workers.keys() | there.keys())
    ]
    old = [each for each in found if each.doing == "gone" and now_ms - (each.since_ms or 0) > OLD_MS]
    shown = [each for each in found if each not in old]
    return Followers(alias, promotion, shown, len(old), group_known=members is not None)


def _follower(
    name: str,
    report: Report | None,
    there: bool,
    partitions: int | None,
    promotion: Promotion | None,
    models: Models,
) -> Follower:
    if report is None:
        return Follower(
            worker=name,
            partitions=partitions,
            serves=None,
            doing="no report",
            since_ms=None,
            fits=False,
            why="it is in the group, and there is no report: it has just started or stopped, or it is an older rec2pm",
        )
    gone = not there and report.state in ("serving", "refused")
    elsewhere = _other_alias(report, promotion, models)
    fits = promotion is not None and report.sha256 == promotion.sha256 and report.serves == promotion.version
    asked = there and elsewhere is None
    return Follower(
        worker=name,
        partitions=partitions,
        serves=report.serves,
        doing="gone" if gone else report.state,
        since_ms=report.since_ms,
        fits=fits if asked else None,
        why=_why(report, there=there, fits=fits, elsewhere=elsewhere, promotion=promotion),
    )


def _other_alias(report: Report, promotion: Promotion | None, models: Models) -> str | None:
    """The alias that a worker follows, if it is another one: known from the promotion that it serves or loads."""
    for named in (report.of_promotion, report.promotion):
        if named and (known := models.history.get(named)) is not None:
            return None if promotion is None or known.alias == promotion.alias else known.alias
    return None


def _why(report: Report, *, there: bool, fits: bool, elsewhere: str | None, promotion: Promotion | None) -> str | None:
    more = f": {report.why}" if report.why else ""
    if not there and report.state in ("serving", "refused"):
        return "it is not in the group, and did not stop cleanly"
    if elsewhere is not None:
        return f"it follows {elsewhere}"
    if promotion is None or fits:
        return None if report.why is None or fits else report.why
    outside = "" if there else "it is not in the group; "
    if report.of_promotion == promotion.id or report.of == promotion.version:
        verb = {"loading": "loads", "refused": "refuses", "waiting": "waits for", "serving": "does not serve"}
        return f"{outside}it {verb[report.state]} {promotion.version}{more}"
    if report.source == "configured":
        return f"{outside}it serves what REC2PM_MODEL names: REC2PM_FOLLOW=none, or it has not read the promotion yet{more}"
    return f"{outside}it has not read the promotion of {promotion.version} yet{more}"
