"""Dead letters for people and for programs: lines of text, and JSON."""

import heapq
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from confluent_kafka import Message

from stream.commands.dead_letters.letters import NOT_OURS, Letter, headers_of, is_replayed, kind, letter_of, written
from stream.commands.dead_letters.notes import Replayed
from stream.commands.output import counted, json_line, moment, printable
from stream.wire import Refusal, refusal

_SHOWN_BYTES: Final = 4096


@dataclass(frozen=True, slots=True)
class Listing:
    """What `rec2pm dead-letters list` shows."""

    newest: Sequence[Letter]
    """The newest letters, the newest last."""
    notes: Mapping[int, Replayed | None]
    reasons: Counter[str]
    """Of all letters."""
    replayed: int
    """How many of all letters were replayed."""
    incomplete: int
    """How many of all letters lack a part of their record."""


def listing(letters: Iterable[Letter], notes: Mapping[int, Replayed | None], limit: int) -> Listing:
    """Count all letters, and keep the newest `limit`."""
    reasons = Counter[str]()
    replayed = incomplete = 0
    newest: list[tuple[int, tuple[int, int], Letter]] = []
    for each in letters:
        reasons[kind(each.refusal)] += 1
        replayed += is_replayed(each, notes)
        incomplete += each.refusal is not None and bool(each.refusal.left_out)
        (heapq.heappush if len(newest) < limit else heapq.heappushpop)(newest, (each.time_ms, each.place, each))
    oldest_first = sorted(newest, key=lambda entry: entry[:2])
    return Listing([each for _, _, each in oldest_first], notes, reasons, replayed, incomplete)


def listing_lines(listed: Listing, topic: str) -> list[str]:
    if not listed.newest:
        return [f"no dead letters in {topic}"]
    count = listed.reasons.total()
    shown = len(listed.newest)
    cut = f"; the newest {shown} are shown" if count > shown else ""
    return [
        *table(listed.newest, listed.notes),
        "",
        f"{counted(count, 'dead letter')} in {topic}, {listed.replayed} replayed{cut}:",
        *histogram(listed.reasons),
        *([f"{listed.incomplete} without a part of the record, which was too large"] if listed.incomplete else []),
    ]


def listing_json(listed: Listing) -> list[str]:
    return [json_line(fields(each, listed.notes)) for each in listed.newest]


def table(letters: Iterable[Letter], notes: Mapping[int, Replayed | None]) -> list[str]:
    """A line per letter in aligned columns, below a line that names them."""
    rows = [("LETTER", "REFUSED (UTC)", "FROM", "ATTEMPTS", "REPLAYED", "REASON")]
    for each in letters:
        refused = each.refusal
        source = "?" if refused is None else printable(f"{refused.topic}[{refused.partition}]@{refused.offset}")
        attempts = "?" if refused is None else str(refused.attempts)
        reason = NOT_OURS if refused is None else (refused.message or refused.exception) + _lacking(refused)
        replayed = "yes" if is_replayed(each, notes) else "no"
        rows.append((written(each.place), moment(each.time_ms), source, attempts, replayed, reason))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)][:-1]
    return [
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), printable(row[-1])])
        for row in rows
    ]


def _lacking(refused: Refusal) -> str:
    parts = " and ".join(f"{each.part} of {counted(each.size, 'byte')}" for each in refused.left_out)
    return f" (letter without the {parts})" if parts else ""


def histogram(reasons: Mapping[str, int]) -> list[str]:
    """How many letters there are of each reason, most first."""
    width = max((len(str(count)) for count in reasons.values()), default=0)
    return [
        f"  {count:>{width}}  {printable(reason)}"
        for reason, count in sorted(reasons.items(), key=lambda each: -each[1])
    ]


def fields(each: Letter, notes: Mapping[int, Replayed | None]) -> dict[str, Any]:
    """A letter for JSON, its place first; what its headers do not say is null."""
    refused = each.refusal
    return {
        "place": written(each.place),
        "refused_at": each.time_ms,
        "topic": refused and refused.topic,
        "partition": refused and refused.partition,
        "offset": refused and refused.offset,
        "timestamp": refused and refused.timestamp,
        "attempts": refused and refused.attempts,
        "exception": refused and refused.exception,
        "reason": refused and refused.message,
        "left_out": [] if refused is None else [msgspec.to_builtins(part) for part in refused.left_out],
        "replayed": is_replayed(each, notes),
    }


def details(message: Message, notes: Mapping[int, Replayed | None]) -> list[str]:
    """Everything about one letter; bytes are readable where they are text or MessagePack."""
    each, refused = letter_of(message), refusal(headers_of(message))
    headers = refused.headers if refused else headers_of(message)
    facts = [("reason", NOT_OURS)]
    if refused is not None:
        sent = "at an unknown time" if refused.timestamp is None else f"sent {moment(refused.timestamp)} UTC"
        facts = [
            ("reason", f"{refused.exception}: {refused.message}"),
            ("from", f"{refused.topic}[{refused.partition}]@{refused.offset}, {sent}"),
            ("attempts", str(refused.attempts)),
        ]
    facts.append(("replayed", "yes" if is_replayed(each, notes) else "no"))
    lines = [f"letter {written(each.place)}, refused {moment(each.time_ms)} UTC"]
    lines += [f"  {name:<9} {printable(text)}" for name, text in facts]
    lines += [f"  {'header':<9} {printable(name)}: {readable(value)}" for name, value in headers]
    lacks = {} if refused is None else {part.part: part for part in refused.left_out}
    for name, data in (("headers", None), ("key", message.key()), ("value", message.value())):
        if name in lacks:
            lines.append(
                f"  {name:<9} not kept: {counted(lacks[name].size, 'byte')} were too large for a dead letter "
                f"(sha256 {printable(lacks[name].sha256)})"
            )
        elif name != "headers":
            lines.append(f"  {name:<9} {readable(data)}")
    return [f"{' ' * 12 if at else ''}{part}" for line in lines for at, part in enumerate(line.split("\n"))]


def left_out(message: Message, part: str) -> str | None:
    """Why a letter has no value, headers or key; None if it has what its record had."""
    refused = refusal(headers_of(message))
    for each in () if refused is None else refused.left_out:
        if each.part == part:
            return (
                f"the letter does not have the {part} of its record: {counted(each.size, 'byte')} were too large for a "
                "dead letter"
            )
    return None


def details_json(message: Message, notes: Mapping[int, Replayed | None]) -> list[str]:
    """The same as JSON; bytes are base64."""
    refused = refusal(headers_of(message))
    headers = refused.headers if refused else headers_of(message)
    shown = {
        **fields(letter_of(message), notes),
        "headers": [list(header) for header in headers],
        "key": message.key(),
        "value": message.value(),
    }
    return [json_line(shown)]


def readable(data: bytes | None) -> str:
    """Bytes as text, as a MessagePack map or array, or in hexadecimal; never a character that a terminal would act
    on.
    """
    if data is None:
        return "null"
    if not data:
        return "empty"
    size = f"({counted(len(data), 'byte')})"
    if (text := _text(data)) is not None:
        return _cut(text, f"text {size}: ")
    try:
        decoded = msgspec.msgpack.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError):
        decoded = None
    if isinstance(decoded, dict | list):
        return _cut(repr(decoded), f"MessagePack {size}: ")
    return _cut(data[:_SHOWN_BYTES].hex(" "), f"bytes {size}: ")


def _text(data: bytes) -> str | None:
    """The bytes as text; None where they are not text, or have control characters other than tabs and line ends."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return None
    return text if text.replace("\n", "").replace("\t", "").isprintable() else None


def _cut(text: str, before: str) -> str:
    return before + (text if len(text) <= _SHOWN_BYTES else text[:_SHOWN_BYTES] + " … (--raw or --json for all of it)")
