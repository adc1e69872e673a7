"""`rec2pm models history`: what was promoted, when, by whom, and why."""

from collections.abc import Iterator, Sequence

from stream.commands.models.table import INDENT, table
from stream.commands.output import json_line
from stream.promotion.record import Promotion, iso


def history_lines(promotions: Sequence[Promotion]) -> Iterator[str]:
    """A row for each promotion, and below it what else there is to say."""
    if not promotions:
        return
    heads = ("WHEN", "KIND", "ALIAS", "VERSION", "FROM", "WHO")
    rows = [
        (iso(each.when_ms), each.kind, each.alias, each.version, each.previous or "-", each.who) for each in promotions
    ]
    head, *lines = table(heads, rows)
    yield head
    for each, line in zip(promotions, lines, strict=True):
        yield line
        for more in details(each):
            yield f"{INDENT}{more}"


def details(promotion: Promotion) -> Iterator[str]:
    """What a row has no room for: why, what was forced, the figures of the gate."""
    if promotion.why is not None:
        yield f"why: {promotion.why}"
    if promotion.forced:
        yield f"forced past: {', '.join(promotion.forced)}"
    for check in promotion.gate:
        yield f"{check.result}: {check.name}: {check.figure}"


def history_json(promotions: Sequence[Promotion]) -> Iterator[str]:
    """A line for each promotion: the record as it is in Kafka."""
    return map(json_line, promotions)
