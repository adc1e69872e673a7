"""`rec2pm produce`."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from stream.commands.kafka_connection import current_settings, kafka_options, reports_kafka_errors
from stream.commands.log_options import LogOptions, log_options
from stream.commands.output import progress_bar, say

if TYPE_CHECKING:
    from stream.commands.pace import Pace
    from stream.commands.send_log import Rows
    from stream.settings import Settings


def _speed(_: click.Context, __: click.Parameter, text: str | None) -> float | None:
    if text is None:
        return None
    try:
        speed = float(text.removesuffix("x"))
    except ValueError:
        speed = 0.0
    if not 0 < speed < float("inf"):
        raise click.BadParameter(f"{text!r} is no speed, expected a number above 0, such as 10x")
    return speed


@click.command(short_help="Send an event log into the interactions topic.")
@log_options
@click.option(
    "--rate",
    type=click.FloatRange(min=0, min_open=True),
    help="Interactions per second. [default: as fast as Kafka accepts them]",
)
@click.option(
    "--speed",
    callback=_speed,
    metavar="FACTOR",
    help="With the spacing that the log has, so many times as fast as it happened: 1x, 10x, 0.5x.",
)
@click.option("--limit", type=click.IntRange(min=1), help="Send only the first N interactions.")
@click.option(
    "--resume",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Send each interaction once, whatever is killed: the same command goes on where it was. FILE names the run.",
)
@reports_kafka_errors
def produce(
    log: str, reading: LogOptions, rate: float | None, speed: float | None, limit: int | None, resume: Path | None
) -> None:
    """Send an event log into the interactions topic, in time order.

    LOG is Parquet, CSV, other separated text or JSON lines: a file, a folder or a glob. The settings of the worker say
    which fields the records have. The interactions of a user arrive in their order.
    """
    from stream.commands import send_log
    from stream.commands.pace import Pace
    from stream.keys import KeyFormat

    if rate is not None and speed is not None:
        raise click.UsageError("--rate and --speed both say when interactions are sent: give one of them")
    settings = current_settings()
    opened = reading.open(log)
    shape = send_log.Shape(settings.fields, settings.times)
    rows = send_log.Rows(opened.interactions, shape=shape, keys=KeyFormat(settings.key_format), limit=limit)
    if resume is None:
        sent = _send(settings, rows, Pace(rate, speed))
    else:
        sent = _send_once(settings, rows, rate, speed, resume)
    say(f"produced {sent} interactions to {settings.interactions_topic}", err=True)


def _send(settings: "Settings", rows: "Rows", pace: "Pace") -> int:
    from stream.commands import send_log
    from stream.kafka.rights import of_produce

    kafka = _options(settings, *of_produce(settings.names))
    _say_how_long(pace, rows, 0)
    with progress_bar("produce") as progress:
        return send_log.send(
            rows,
            kafka=kafka,
            topic=settings.interactions_topic,
            pace=pace,
            clock=time.monotonic,
            sleep=time.sleep,
            progress=progress,
        )


def _send_once(settings: "Settings", rows: "Rows", rate: float | None, speed: float | None, path: Path) -> int:
    from confluent_kafka.admin import AdminClient

    from stream.commands.pace import Pace
    from stream.commands.send_once import TICK_S, RunFile, Sender
    from stream.kafka.questions import topic_id
    from stream.kafka.rights import of_produce, of_produce_resume

    pace = Pace(rate, speed, TICK_S)
    kafka = _options(settings, *of_produce(settings.names))
    admin = AdminClient({name: value for name, value in kafka.items() if name != "partitioner"})
    file = RunFile(path)
    try:
        run = file.run(rows, settings.interactions_topic, topic_id(admin, settings.interactions_topic))
        kafka = _options(settings, *of_produce_resume(settings.names, run.id))
        sender = Sender(kafka, settings.app, file, run)
        if sender.place:
            say(f"{sender.place} of {len(rows)} interactions were sent before", err=True)
        _say_how_long(pace, rows, sender.place)
        with progress_bar("produce") as progress:
            return sender.send(rows, pace, time.monotonic, time.sleep, progress)
    finally:
        file.close()


def _options(settings: "Settings", *needed: Any) -> dict[str, Any]:
    from stream.kafka.known_partitioners import option

    return {**kafka_options(settings, *needed), **option(settings.partitioner)}


def _say_how_long(pace: "Pace", rows: "Rows", start: int) -> None:
    from stream.commands.pace import in_words

    times = rows.times(start)
    seconds = pace.takes_s(times)
    if seconds is not None and len(times):
        spans = in_words(float(times[-1] - times[0]) / 1000)
        say(f"{len(times)} interactions of {spans} take {in_words(seconds)}", err=True)
