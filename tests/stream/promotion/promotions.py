"""Promotions and reports for tests."""

from typing import Any, Final

from stream.promotion.record import CHAMPION, Promotion, Report, new_id

NOON: Final = 1_796_040_000_000
"""2026-11-30 12:00 UTC, epoch ms."""


def promotion(version: str, after: Promotion | None = None, **fields: Any) -> Promotion:
    """A promotion of a version, `after` the one that the promoter saw."""
    when_ms = fields.pop("when_ms", NOON if after is None else after.when_ms + 60_000)
    given: dict[str, Any] = {
        "id": new_id(when_ms),
        "alias": CHAMPION,
        "uri": f"/models/{version.replace('@', '/')}",
        "sha256": f"{version.partition('@')[2]:>064}",
        "memory_format": "rec2pm/2x16/0123456789ab",
        "segment_length": 10,
        "bytes": 1_000,
        "previous": None if after is None else after.version,
        "expected": None if after is None else after.id,
        "who": "ada@laptop",
        "when_ms": when_ms,
    }
    return Promotion(version=version, **(given | fields))


def report(worker: str, serves: Promotion | None, **fields: Any) -> Report:
    """What a worker reports that serves a promotion."""
    given: dict[str, Any] = {
        "state": "serving" if serves else "waiting",
        "serves": serves and serves.version,
        "sha256": serves and serves.sha256,
        "promotion": serves.id if serves else "",
        "source": "promoted" if serves else "configured",
        "since_ms": NOON,
    }
    return Report(worker=worker, **(given | fields))
