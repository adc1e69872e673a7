"""The interactions topic, or a part of it, as a folder of Parquet: `rec2pm interactions export`, `replay --from-kafka`.

Records are read as a worker reads them: committed ones, with the same keys, fields, events and times. A null value
forgets its user: their rows before it are not in the folder. It joins no group and commits nothing.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final, cast

from confluent_kafka.admin import AdminClient

from stream.errors import ExportUnfit
from stream.event import EventReader
from stream.interactions.pieces import Job, Pieces
from stream.interactions.window import Ranges, Window, readable, resolved
from stream.kafka.questions import topic_id
from stream.kafka.read_topic import committed_records
from stream.keys import KeyFormat
from stream.rows import Batch, Reader
from stream.settings import Settings
from stream.wire import Record

ROWS: Final = 250_000
"""Rows of a file, at most about so many: what is in memory at a time."""
_TOGETHER: Final = 5000


@dataclass(frozen=True, slots=True)
class Exported:
    """What an export brought."""

    rows: int
    partitions: Ranges
    """Partition → the first offset, and the one after the last."""
    refused: int
    """Records that a worker would put among the dead letters."""
    reasons: Mapping[str, int]
    passed_over: int
    """Events of other kinds."""
    without_time: int
    """Interactions that say no plausible time, in records that have none either."""
    forgotten: int
    """Null values."""


def export(
    settings: Settings,
    kafka: Mapping[str, Any],
    *,
    topic: str,
    window: Window,
    out: Path,
    progress: Callable[[int, int], None],
    rows_of_a_file: int = ROWS,
) -> Exported:
    """Write the interactions of a topic to a folder: user_id, item_id, timestamp (epoch ms), partition, offset.

    A start after a kill goes on where the files end, with the range of the first start.

    Args:
        settings: how records are read.
        kafka: options of a client, `bootstrap.servers` among them.
        out: appears when it is whole.
        progress: called with (offsets read, offsets in all).

    Raises:
        ExportUnfit: the folder or the range does not fit.
        TopicsUnusable, BehindOpenTransaction, KafkaUnusable: the topic cannot be read.
    """
    pieces = Pieces(out)
    try:
        ranges = resolved(kafka, topic, window) if (noted := pieces.job()) is None else _numbered(noted)
        job = pieces.begin(
            Job(
                topic,
                topic_id(AdminClient({**kafka}), topic),
                window.words(),
                _reading(settings),
                {str(number): each for number, each in ranges.items()},
            )
        )
        if pieces.origin() is None:
            _refuse_gaps(kafka, job, pieces)
            _read(settings, kafka, job, pieces, rows_of_a_file, progress)
        origin = pieces.finish(job)
    finally:
        pieces.close()
    return Exported(
        origin.rows,
        _numbered(job),
        origin.refused,
        origin.reasons,
        origin.passed_over,
        origin.without_time,
        origin.forgotten,
    )


def _numbered(job: Job) -> Ranges:
    return {int(number): each for number, each in job.ranges.items()}


def _reading(settings: Settings) -> str:
    """The settings that decide what a row is: a later start must have the same."""
    fields, times = settings.fields, settings.times
    said = [*fields.item, *fields.time, *(fields.user or ()), *(fields.event or ()), *sorted(fields.events)]
    return f"{settings.key_format} {' '.join(said)} {times.unit or 'auto'} {times.earliest_ms}..{times.latest_ms}"


def _refuse_gaps(kafka: Mapping[str, Any], job: Job, pieces: Pieces) -> None:
    """Raise ExportUnfit if records were deleted before they were read."""
    first = readable(kafka, job.topic)
    for number, (begin, until) in _numbered(job).items():
        start = pieces.next(number)
        start = begin if start is None else start
        if start < until and start < first[number][0]:
            raise ExportUnfit(
                f"{job.topic}[{number}]: the records from offset {start} to {first[number][0]} were deleted before they were read "
                "(retention): remove the unfinished folder and begin again, without them"
            )


def _read(
    settings: Settings,
    kafka: Mapping[str, Any],
    job: Job,
    pieces: Pieces,
    rows_of_a_file: int,
    progress: Callable[[int, int], None],
) -> None:
    """Read all partitions from where their files end."""
    events, keys = EventReader(settings.fields, settings.times), KeyFormat(settings.key_format)
    ranges = _numbered(job)
    total, before = sum(until - begin for begin, until in ranges.values()), 0
    for number, (begin, until) in ranges.items():
        start = pieces.next(number)
        start = begin if start is None else start
        if start < until:
            for batch, reader in _batches(
                kafka, job.topic, number, start, until, rows_of_a_file, events, keys, settings
            ):
                pieces.append(number, batch, reader.counts, reader.reasons)
                progress(before + batch.next - begin, total)
        before += until - begin
    progress(total, total)


def _batches(
    kafka: Mapping[str, Any],
    topic: str,
    number: int,
    start: int,
    until: int,
    rows: int,
    events: EventReader,
    keys: KeyFormat,
    settings: Settings,
) -> Iterator[tuple[Batch, Reader]]:
    """A range of a partition, in batches of about so many records. The last one ends where the range does."""
    batch, reader = Batch(start, start), Reader(events, keys, settings.times)
    messages = committed_records(kafka, topic, number, start, until)
    while together := list(islice(messages, min(_TOGETHER, rows - reader.counts.records))):
        reader.read(cast("list[Record]", together), {number: batch})
        if reader.counts.records >= rows:
            yield batch, reader
            batch, reader = Batch(batch.next, batch.next), Reader(events, keys, settings.times)
    if batch.first < until:
        batch.next = until  # behind the last record there may be markers of transactions, and aborted records
        yield batch, reader
