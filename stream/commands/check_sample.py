"""What `rec2pm topics check` says of the newest records of the input, before a worker reads them.

Keys and values are read as a worker reads them (`stream.keys`, `stream.event`). Each subject gets one line: what was
found, and if that is wrong, which setting or which change in a producer makes it right.
"""

import re
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final, Literal, NamedTuple, get_args

from model.ids import Id
from model.times import UNIT_NAMES, recognised
from stream.commands.output import counted
from stream.errors import MalformedInteraction
from stream.event import EventReader, Implausible
from stream.kafka.names import dead_letter_topic
from stream.kafka.sample import Sample, Sampled
from stream.key_check import IN_QUOTES, judged
from stream.keys import Format, KeyFormat, quoted
from stream.policy import JUDGED_FROM
from stream.settings import Settings

RECORDS: Final = 1000
WITHIN_S: Final = 5.0
_NUMBERS: Final = re.compile(r"0x[0-9a-f]+|\d+")


class _Reasons:
    """Reasons, counted. Those that differ only in numbers are one, and the first of them stands for all."""

    def __init__(self) -> None:
        self.count = 0
        self._counts: Counter[str] = Counter()
        self._examples: dict[str, str] = {}

    def add(self, reason: str) -> None:
        self.count += 1
        self._counts[self._examples.setdefault(_NUMBERS.sub("N", reason), reason)] += 1

    def commonest(self, most: int) -> str:
        return "; ".join(f"{count} × {reason}" for reason, count in self._counts.most_common(most))


class Line(NamedTuple):
    """One line. `error`: a worker would stop; `warning`: it deserves a look."""

    severity: Literal["pass", "warning", "error"]
    text: str

    @property
    def mark(self) -> str:
        return {"pass": "PASS", "warning": "WARN", "error": "FAIL"}[self.severity]


class _Read(NamedTuple):
    """The sample as a worker would read it."""

    users: Sequence[bytes | None]
    """The user of each record; None where its key is refused."""
    items: Sequence[Id]
    """Of each interaction."""
    implausible: Sequence[Implausible]
    times: Sequence[int]
    """Of interactions with a plausible time, epoch ms."""
    raw_times: Sequence[Any]
    """Of each interaction that has a time, as it came."""
    refusals: "_Reasons"
    passed_over: int


def sample_lines(sample: Sample, settings: Settings) -> list[Line]:
    """What the sample says, a line for each subject."""
    topic = settings.interactions_topic
    if not sample.records:
        if sample.complete:
            return [Line("pass", f"{topic} holds no records yet: there are no keys and values to check")]
        return [Line("warning", f"{topic} gave no record within {WITHIN_S:g} s: keys and values are not checked")]
    read = _read(sample.records, settings)
    many = f"the newest {counted(len(sample.records), 'record')} of {topic}"
    return [
        _of_keys(sample.records, read, settings, many),
        _of_partitions(sample, settings),
        *_of_interactions(read, settings),
        _of_refusals(sample.records, read, settings, many),
    ]


def _read(records: Sequence[Sampled], settings: Settings) -> _Read:
    keys, events = KeyFormat(settings.key_format), EventReader(settings.fields, settings.times)
    users = keys.users([record.key for record in records])
    items: list[Id] = []
    implausible: list[Implausible] = []
    times: list[int] = []
    raw_times: list[Any] = []
    refusals = _Reasons()
    passed_over = 0
    for record, known in zip(records, users, strict=True):
        try:
            user = keys.user(record.key) if known is None else known
            if record.value is None:  # the user is to be forgotten
                continue
            found = events.read(record.value, user)
            if found is None:
                passed_over += 1
                continue
            raw = events.raw_time(record.value)
        except MalformedInteraction as error:
            refusals.add(str(error))
            continue
        items.append(found[0])
        if isinstance(found[1], Implausible):
            implausible.append(found[1])
        elif found[1] is not None:
            times.append(found[1])
        if raw is not None:
            raw_times.append(raw)
    return _Read(users, items, implausible, times, raw_times, refusals, passed_over)


def _of_keys(records: Sequence[Sampled], read: _Read, settings: Settings, many: str) -> Line:
    keys = [record.key for record in records if record.key]
    refused = [record.key for record, user in zip(records, read.users, strict=True) if user is None]
    configured, fits = f"REC2PM_KEY_FORMAT={settings.key_format}", _fitting(keys)
    if keys and fits not in (settings.key_format, None):
        if settings.key_format == "utf8" and not refused:
            return Line("warning", f"keys: {IN_QUOTES}")
        found = (
            f"{len(refused)} of {many} do not fit {configured}" if refused else f"{configured} takes text for numbers"
        )
        return Line("warning", f"keys: {found}. All keys fit {fits}: set REC2PM_KEY_FORMAT={fits}")
    if refused:
        form, reasons = KeyFormat(settings.key_format), _Reasons()
        for key in refused:
            try:
                form.user(key)
            except MalformedInteraction as error:
                reasons.add(str(error))
        return Line("warning", f"keys: {len(refused)} of {many} have no user id as their key: {reasons.commonest(1)}")
    return Line("pass", f"keys: {counted(len(set(keys)), 'user')} in {many} ({configured})")


def _fitting(keys: Sequence[bytes]) -> Format | None:
    """The format that all keys have; None if there is none. Text is never taken for numbers of the same length."""
    if keys and all(map(quoted, keys)):
        return "json"
    return next((name for name in get_args(Format) if None not in KeyFormat(name).users(keys)), None)


def _of_partitions(sample: Sample, settings: Settings) -> Line:
    if settings.partitioner == "ignore":
        return Line("pass", "partitions: not compared (REC2PM_PARTITIONER=ignore)")
    # A key that is no user has a partition all the same: its producer chose it in the same way.
    pairs = [(record.key, record.partition) for record in sample.records if record.key]
    wrong = judged(pairs, sample.width, settings.partitioner, settings.interactions_topic)
    if wrong is not None:
        return Line("warning", f"partitions: {wrong}")
    return Line("pass", f"partitions: {counted(len(pairs), 'key')}, each where {settings.partitioner} sends it")


def _of_interactions(read: _Read, settings: Settings) -> list[Line]:
    if not read.items:
        if read.passed_over:
            said = f"events: all {read.passed_over} are of other kinds than REC2PM_EVENTS={settings.events}"
            return [Line("warning", f"{said}, and are passed over: is REC2PM_EVENTS right?")]
        return []
    passed = f"; {read.passed_over} other events are passed over" if read.passed_over else ""
    return [_of_times(read, settings), Line("pass", f"items: {_kinds_of_items(read.items)}{passed}")]


def _of_times(read: _Read, settings: Settings) -> Line:
    field = f"`{settings.time_field}`"
    if not read.raw_times:
        return Line("pass", f"times: no event has {field} (REC2PM_TIME_FIELD), so the records' timestamps count")
    stated = settings.times.unit
    forms = Counter(_form(each) for each in read.raw_times)
    said = " and ".join(f"{count} in {form}" for form, count in forms.most_common())
    if read.implausible:
        example = ascii(read.implausible[0].value)[:40]
        taken = ""
        if stated is not None and stated != "iso":
            taken = f" It was taken for {UNIT_NAMES[stated]} (REC2PM_TIME_UNIT={stated})."
        return Line(
            "warning",
            f"times: {len(read.implausible)} of {len(read.raw_times)} in {field} are not plausible, one is {example}."
            f"{taken} By their size there are {said}. The records' timestamps would count instead",
        )
    without = len(read.items) - len(read.raw_times)
    rest = f"; {without} events have none, and their records' timestamps count" if without else ""
    span = f"from {_day(min(read.times))} to {_day(max(read.times))}"
    numbers = set(forms) & set(UNIT_NAMES.values())
    if len(numbers) > 1:
        return Line(
            "warning",
            f"times: {said}: producers disagree about {field}. Each number is read by its size, {span}{rest}",
        )
    return Line("pass", f"times: {said}, {span}{rest}")


def _form(raw: Any) -> str:
    """In which form a time came; a number by its size."""
    if isinstance(raw, datetime):
        return "timestamps of MessagePack"
    if isinstance(raw, int | float):
        return UNIT_NAMES[recognised(raw)]
    try:
        return UNIT_NAMES[recognised(float(raw))]
    except ValueError:
        return "ISO 8601"


def _day(epoch_ms: int) -> str:
    return datetime.fromtimestamp(epoch_ms / 1000, UTC).date().isoformat()


def _kinds_of_items(items: Sequence[Id]) -> str:
    kinds = Counter(_kind(item) for item in items)
    return f"{counted(len({str(item) for item in items}), 'item')} in " + ", ".join(
        f"{counted(count, 'event')} as {kind}" for kind, count in kinds.most_common()
    )


def _kind(item: Id) -> str:
    if isinstance(item, int):
        return "integers"
    if item.isascii() and item.isdigit():
        return "text of digits" if item == str(int(item)) else "text of digits with leading zeros, which is no integer"
    return "text"


def _of_refusals(records: Sequence[Sampled], read: _Read, settings: Settings, many: str) -> Line:
    refused = read.refusals.count
    if not refused:
        return Line("pass", f"refused: none of {many}")
    commonest = read.refusals.commonest(3)
    if len(records) >= JUDGED_FROM and refused > settings.max_refused * len(records):
        return Line(
            "error",
            f"refused: {refused} of {many}, more than REC2PM_MAX_REFUSED={settings.max_refused:g} allows, so a worker "
            f"would stop: {commonest}",
        )
    return Line("warning", f"refused: {refused} of {many} would go to {dead_letter_topic(settings.app)}: {commonest}")
