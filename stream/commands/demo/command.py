"""The options of `rec2pm demo`."""

import logging
import os
import sys
from pathlib import Path

import click

from stream.commands.kafka_connection import reports_kafka_errors
from stream.commands.log_options import LogOptions, reading_options


@click.command(short_help="Show the whole loop in one terminal, in a few minutes.")
@click.option("--log", help="Your event log instead of the synthetic one.")
@reading_options
@click.option(
    "--folder",
    default=Path("var/demo"),
    show_default=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Where the demo writes its files.",
)
@click.option("--serve", is_flag=True, help="Go on at the end, with the page of the view, until Ctrl-C.")
@reports_kafka_errors
def demo(log: str | None, reading: LogOptions, folder: Path, serve: bool) -> None:
    """Show the whole loop in one terminal, in a few minutes: broker, topics, model, traffic, workers and their lists.

    The demo uses the Kafka of REC2PM_BOOTSTRAP_SERVERS or KAFKA_HOME when one of them is set, and starts an embedded
    broker otherwise.
    """
    from rich.console import Console

    from stream.commands.broker_process import BrokerNotFound
    from stream.commands.demo.log import sampled
    from stream.commands.demo.run import run_demo
    from stream.torch_threads import one_thread

    logging.getLogger().setLevel(logging.WARNING)
    one_thread()
    try:
        run_demo(
            None if log is None else sampled(log, reading),
            folder,
            os.environ,
            Console(width=None if sys.stdout.isatty() else 120),
            serves=serve,
        )
    except BrokerNotFound as error:
        raise click.ClickException(str(error)) from error
