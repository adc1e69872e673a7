"""Dead letters as people and programs see them: lines of text, and JSON."""

import time
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec
from confluent_kafka import Message

from stream.commands.dead_letters.letters import NOT_OURS, Letter, headers_of, is_replayed, letter, written
from stream.commands.dead_letters.notes import Replayed
from stream.wire import refusal

_SHOWN_BYTES: Final = 4096


def table(shown: Iterable[Letter], replayed: Mapping[int, Replayed | None]) -> list[str]:
    """A line per letter in aligned columns, below a line that names them."""
    rows = [("LETTER", "REFUSED (UTC)", "FROM", "ATTEMPTS", "REPLAYED", "REASON")]
    for each in shown:
        said = each.refusal
        source = "?" if said is None else f"{said.topic}[{said.partition}]@{said.offset}"
        attempts = "?" if said is None else str(said.attempts)
        reason = NOT_OURS if said is None else said.message or said.exception
        rows.append(
            (
                written(each.place),
                moment(each.time_ms),
                source,
                attempts,
                "yes" if is_replayed(each, replayed) else "no",
                reason,
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)][:-1]
    return [
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), printable(row[-1])])
        for row in rows
    ]


def histogram(reasons: Mapping[str, int]) -> list[str]:
    """How many letters there are of each reason, most first."""
    width = max((len(str(count)) for count in reasons.values()), default=0)
    return [
        f"  {count:>{width}}  {printable(reason)}"
        for reason, count in sorted(reasons.items(), key=lambda each: -each[1])
    ]


def as_json(each: Letter, replayed: Mapping[int, Replayed | None]) -> dict[str, Any]:
    """A letter as fields, its place first; those that its headers do not say are null."""
    said = each.refusal
    return {
        "place": written(each.place),
        "refused_at": each.time_ms,
        "topic": said and said.topic,
        "partition": said and said.partition,
        "offset": said and said.offset,
        "timestamp": said and said.timestamp,
        "attempts": said and said.attempts,
        "exception": said and said.exception,
        "reason": said and said.message,
        "replayed": is_replayed(each, replayed),
    }


def details(message: Message, replayed: Mapping[int, Replayed | None]) -> list[str]:
    """Everything about one letter, its bytes readable where they are text or MessagePack."""
    each, said = letter(message), refusal(headers_of(message))
    headers = said.headers if said else headers_of(message)
    known = [("reason", NOT_OURS)]
    if said is not None:
        sent = "at an unknown time" if said.timestamp is None else f"sent {moment(said.timestamp)} UTC"
        known = [
            ("reason", f"{said.exception}: {said.message}"),
            ("from", f"{said.topic}[{said.partition}]@{said.offset}, {sent}"),
            ("attempts", str(said.attempts)),
        ]
    lines = [f"letter {written(each.place)}, refused {moment(each.time_ms)} UTC"]
    known.append(("replayed", "yes" if is_replayed(each, replayed) else "no"))
    lines += [f"  {name:<9} {printable(text)}" for name, text in known]
    lines += [f"  {'header':<9} {printable(name)}: {readable(value)}" for name, value in headers]
    lines += [f"  {'key':<9} {readable(message.key())}", f"  {'value':<9} {readable(message.value())}"]
    return [line.replace("\n", "\n" + " " * 12) for line in lines]


def details_as_json(message: Message, replayed: Mapping[int, Replayed | None]) -> dict[str, Any]:
    """The same as fields; bytes become base64."""
    said = refusal(headers_of(message))
    headers = said.headers if said else headers_of(message)
    return {
        **as_json(letter(message), replayed),
        "headers": [list(header) for header in headers],
        "key": message.key(),
        "value": message.value(),
    }


def readable(data: bytes | None) -> str:
    """Bytes as text, as a MessagePack map or array, or in hexadecimal; never a character that a terminal would act
    on.
    """
    if data is None:
        return "null"
    if not data:
        return "empty"
    size = f"({len(data)} byte{'' if len(data) == 1 else 's'})"
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
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return None
    return (
        text
        if printable(text.replace("\n", "").replace("\t", "")) == text.replace("\n", "").replace("\t", "")
        else None
    )


def _cut(text: str, before: str) -> str:
    return before + (text if len(text) <= _SHOWN_BYTES else text[:_SHOWN_BYTES] + " … (--raw or --json for all of it)")


def printable(text: str) -> str:
    """Text whose control characters are escaped."""
    return text if text.isprintable() else "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)


def moment(epoch_ms: int) -> str:
    """A time in UTC, to the second."""
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(epoch_ms / 1000))
    except (OverflowError, ValueError, OSError):  # a producer may write any 64-bit number
        return f"{epoch_ms} ms"
