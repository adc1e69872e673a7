"""`rec2pm produce`."""

import time

import click

from stream.commands.kafka_connection import current_settings, kafka_options, reports_kafka_errors
from stream.commands.log_options import LogOptions, log_options
from stream.commands.output import progress_bar, say


@click.command(short_help="Send an event log into the interactions topic.")
@log_options
@click.option(
    "--rate",
    type=click.FloatRange(min=0, min_open=True),
    help="Interactions per second. [default: as fast as Kafka accepts them]",
)
@click.option("--limit", type=click.IntRange(min=1), help="Send only the first N interactions.")
@reports_kafka_errors
def produce(log: str, reading: LogOptions, rate: float | None, limit: int | None) -> None:
    """Send an event log into the interactions topic, in time order.

    LOG is Parquet, CSV, other separated text or JSON lines: a file, a folder or a glob. The settings of the worker say
    which fields the records have.
    """
    from stream.commands import send_log
    from stream.kafka.known_partitioners import option
    from stream.kafka.rights import of_produce
    from stream.keys import KeyFormat

    settings = current_settings()
    opened = reading.open(log)
    kafka = kafka_options(settings, *of_produce(settings.names))
    with progress_bar("produce") as progress:
        sent = send_log.send(
            opened.interactions,
            shape=send_log.Shape(settings.fields, settings.times),
            kafka={**kafka, **option(settings.partitioner)},
            topic=settings.interactions_topic,
            keys=KeyFormat(settings.key_format),
            limit=limit,
            rate=rate,
            clock=time.monotonic,
            sleep=time.sleep,
            progress=progress,
        )
    say(f"produced {sent} interactions to {settings.interactions_topic}", err=True)
