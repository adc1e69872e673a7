"""An audit of an event log: what makes figures from it wrong, or makes them mean something else than a reader thinks.

No torch and no Kafka. The log is scanned several times; what is kept is by user, by item and by day, so memory does not
grow with the number of interactions.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from model.audit import catalogues, histories, next_item, reading, targets, training_ranges
from model.audit.finding import Finding, Verdict
from model.audit.items import by_item
from model.audit.timeline import in_time, order, ties, times
from model.audit.users import by_user
from model.log import Log

if TYPE_CHECKING:
    from model.version.registry import ModelVersion

__all__ = ["Finding", "Verdict", "audit", "worst"]

_ORDER: Final[tuple[Verdict, ...]] = ("OK", "attention", "FAIL")


def audit(
    log: Log,
    *,
    versions: "Sequence[ModelVersion]" = (),
    split: float = 0.9,
    begin_ms: int | None = None,
    now_ms: int | None = None,
    serves_from: Mapping[str, int] | None = None,
) -> list[Finding]:
    """Look at a log, and at what model versions have seen of it.

    Args:
        versions: whose catalogue and training range are compared with the log.
        split: what share of the log, in time order, comes before the interactions that are predicted.
        begin_ms: from which time on interactions are predicted, epoch ms, instead of `split`.
        now_ms: what the clock says, epoch ms: later interactions are a fault. None: nobody looks for later ones.
        serves_from: versions that predict later interactions only: NAME@VERSION → from when on, epoch ms.

    Raises:
        ValueError: `split` is not between 0 and 1.
        ModelError: the manifest or the catalogue of a version cannot be read.
    """
    if not 0.0 < split < 1.0:
        raise ValueError(f"split is {split}, must be between 0 and 1")
    when = in_time(log, split if begin_ms is None else begin_ms, now_ms)
    users = by_user(log, when.split_ms)
    items = by_item(log, when.split_ms)
    found = [
        reading.rows(log, users, items),
        reading.ids(log),
        reading.unit(log),
        times(when),
        order(when, users),
        ties(when, users),
        histories.duplicates(users),
        histories.repeats(users),
        histories.lengths(users),
        targets.cold_users(when, users),
        targets.cold_items(when, items),
        targets.gap(users),
        targets.future(when, users),
        next_item.finding(log),
    ]
    begins = serves_from or {}
    for version in versions:
        found.append(catalogues.unknown_items(version, items))
        found.append(training_ranges.finding(log, version.manifest(), when, begins.get(version.reference, 0)))
    return found


def worst(findings: Sequence[Finding]) -> Verdict:
    """The worst verdict of all."""
    return max((each.verdict for each in findings), key=_ORDER.index, default="OK")
