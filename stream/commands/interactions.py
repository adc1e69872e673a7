"""`rec2pm interactions export`."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from stream.commands.kafka_connection import current_settings, kafka_options, reports_kafka_errors
from stream.commands.output import counted, progress_bar, say

if TYPE_CHECKING:
    from stream.interactions.export import Exported
    from stream.interactions.window import Bound


@click.group(short_help="Write the interactions topic to files.")
def interactions() -> None:
    """Write the interactions topic to files."""


def _bound(_: click.Context, __: click.Parameter, text: str | None) -> "Bound":
    from stream.interactions.window import bound

    try:
        return None if text is None else bound(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


@interactions.command("export", short_help="Write interactions to a folder of Parquet.")
@click.option(
    "--out", required=True, type=click.Path(path_type=Path), help="The folder to write; it appears when it is whole."
)
@click.option("--topic", help="The topic to read. [default: REC2PM_INTERACTIONS_TOPIC]")
@click.option(
    "--from",
    "begin",
    callback=_bound,
    metavar="TIME|OFFSETS",
    help="Where to begin: a time, or offsets such as 0:123,1:456. [default: where the topic begins]",
)
@click.option(
    "--until",
    callback=_bound,
    metavar="TIME|OFFSETS",
    help="Where to end, in the same way. This record is not read any more. [default: where the topic ends now]",
)
@reports_kafka_errors
def interactions_export(out: Path, topic: str | None, begin: "Bound", until: "Bound") -> None:
    """Write the interactions of a topic to a folder of Parquet: user_id, item_id, timestamp, partition and offset.

    Records are read as a worker with the same settings reads them. A user who was forgotten is not in the folder with
    anything from before. A time is that of the record in Kafka, which may differ from the time in the event. The same
    command goes on after a kill, up to where the topic ended when it was started first.
    """
    from stream.interactions.export import export
    from stream.interactions.window import Window
    from stream.kafka.rights import of_interactions_export

    settings = current_settings()
    topic = topic or settings.interactions_topic
    kafka = kafka_options(settings, *of_interactions_export(settings.app, topic))
    with progress_bar("offsets") as progress:
        found = export(settings, kafka, topic=topic, window=Window(begin, until), out=out, progress=progress)
    for line in lines(found, topic):
        say(line)
    say(f"exported {counted(found.rows, 'interaction')} to {out}", err=True)


def lines(found: "Exported", topic: str) -> list[str]:
    """What was read, and what is not in the files."""
    said = [f"{topic}[{number}]: offsets {begin} to {until}" for number, (begin, until) in found.partitions.items()]
    said += [
        f"{counted(count, 'record')} refused: {reason}"
        for reason, count in sorted(found.reasons.items(), key=lambda each: -each[1])
    ]
    if found.passed_over:
        said.append(f"{counted(found.passed_over, 'event')} of other kinds passed over")
    if found.without_time:
        said.append(f"{counted(found.without_time, 'interaction')} without a plausible time left out")
    if found.forgotten:
        said.append(f"{counted(found.forgotten, 'null value')}: what came before of their users is left out")
    return said
