"""The command `rec2pm`. Data goes to stdout, progress and logs to stderr.

Exit codes: 0 done, 2 wrong usage or configuration, 1 anything else, 130 interrupted; SIGTERM is a clean stop (0).
"""

import logging
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import click
from confluent_kafka import KafkaError, KafkaException
from rich.console import Console

from model.errors import ModelError, RecipeInvalid, TrainerMissing, TrainingInterrupted, TrainingUnfinished
from state.errors import StateError
from stream.commands.dead_letters.command import dead_letters
from stream.commands.evaluate import evaluate
from stream.commands.output import (
    EXIT_ERROR,
    EXIT_INTERRUPTED,
    EXIT_USAGE,
    complain,
    current_settings,
    kafka_options,
    log_options,
    progress_bar,
)
from stream.commands.topics import topics
from stream.commands.train import train
from stream.commands.users import state, user
from stream.errors import SettingsInvalid, StreamError, TopicsUnusable
from stream.settings import described


class Explained(click.Group):
    """Groups whose errors are one clear line each, with the exit codes of the convention."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        kwargs["standalone_mode"] = False
        try:
            code = super().main(*args, **kwargs)
        except click.ClickException as error:
            error.show()
            sys.exit(error.exit_code)
        except (click.Abort, KeyboardInterrupt):
            click.echo("interrupted", err=True)
            sys.exit(EXIT_INTERRUPTED)
        except TrainingInterrupted as error:
            complain(error)
            sys.exit(0 if error.signal == signal.SIGTERM else EXIT_INTERRUPTED)
        except (SettingsInvalid, TopicsUnusable, RecipeInvalid, TrainerMissing, TrainingUnfinished) as error:
            complain(error)
            sys.exit(EXIT_USAGE)
        except (StreamError, StateError, ModelError) as error:
            complain(error)
            sys.exit(EXIT_ERROR)
        except KafkaException as error:
            if error.args[0].code() == KafkaError._INVALID_ARG:
                click.echo(f"rec2pm: REC2PM_KAFKA_*: {error.args[0].str()}", err=True)
                sys.exit(EXIT_USAGE)
            click.echo(
                f"rec2pm: Kafka did not do it: {error.args[0].str()} (REC2PM_BOOTSTRAP_SERVERS says where Kafka is)",
                err=True,
            )
            sys.exit(EXIT_ERROR)
        except BrokenPipeError:
            # The reader of our output went away, as `head` does.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(0)
        sys.exit(code if isinstance(code, int) else 0)


@click.group(cls=Explained, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="rec2pm")
@click.option("-v", "--verbose", is_flag=True, help="Log more.")
def main(verbose: bool) -> None:
    """Streaming stateful recommender worker for Kafka (Rec2PM). Settings are environment variables: see `rec2pm worker
    --help`.
    """
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.DEBUG if verbose else logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s %(message)s",
    )
    if not verbose:
        logging.getLogger("rdkafka").setLevel(logging.WARNING)


def _settings_help() -> str:
    lines = ["\b", "Settings (environment):"]
    for name, default, meaning in described():
        lines += [f"  {name}{f' [{default}]' if default else ''}", f"      {meaning}"]
    return "\n".join(lines)


@main.command(epilog=_settings_help())
def worker() -> None:
    """Run one worker process: interactions in, recommendations out.

    As many as there are cores and partitions. SIGTERM and SIGINT finish the step, commit and leave the group.
    """
    signal.signal(
        signal.SIGTERM, lambda *_: sys.exit(0)
    )  # until there is a step to finish; importing torch takes a while
    from stream.compose import run_worker

    run_worker(current_settings())


@main.command()
@click.option("--log", help="Your event log instead of the synthetic one: Parquet, CSV or JSON lines.")
@click.option(
    "--folder",
    default=Path("var/demo"),
    show_default=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="For what it leaves.",
)
def demo(log: str | None, folder: Path) -> None:
    """Broker, topics, model, traffic, workers, and what came out: the whole loop in one terminal, in a few minutes.

    Uses the Kafka of REC2PM_BOOTSTRAP_SERVERS or KAFKA_HOME when one is set, else an embedded broker.
    """
    from stream.commands.broker_process import BrokerNotFound
    from stream.commands.demo.run import run_demo
    from stream.compose import one_thread

    logging.getLogger().setLevel(logging.WARNING)
    one_thread()
    try:
        run_demo(log, folder, os.environ, Console(width=None if sys.stdout.isatty() else 120))
    except BrokerNotFound as error:
        raise click.ClickException(str(error)) from error


@main.command()
@click.option("--listen", default="127.0.0.1:6066", show_default=True, help="HOST:PORT for HTTP.")
@click.option(
    "--name", default="view", show_default=True, help="Of this process: its own among the application's views."
)
def view(listen: str, name: str) -> None:
    """Serve each user's latest list over HTTP, and a page that shows one as it changes."""
    from stream.commands.view.serve import run_view

    run_view(current_settings(), listen=listen, name=name)


@main.command()
@log_options
@click.option(
    "--rate",
    type=click.FloatRange(min=0, min_open=True),
    help="Interactions per second (default: as fast as Kafka takes them).",
)
@click.option("--limit", type=click.IntRange(min=1), help="Only the first so many.")
def produce(
    log: str, user_column: str, item_column: str, timestamp_column: str, rate: float | None, limit: int | None
) -> None:
    """Send an event log into the interactions topic, in time order.

    LOG is Parquet, CSV or JSON lines: a file, a folder or a glob.
    """
    from model.log import read_log
    from stream.commands import send_log

    chosen = current_settings()
    with progress_bar("produce") as progress:
        sent = send_log.send(
            read_log(log, user_column=user_column, item_column=item_column, timestamp_column=timestamp_column),
            kafka=kafka_options(chosen),
            topic=chosen.interactions_topic,
            limit=limit,
            rate=rate,
            clock=time.monotonic,
            sleep=time.sleep,
            progress=progress,
        )
    click.echo(f"produced {sent} interactions to {chosen.interactions_topic}", err=True)


for command in (topics, train, evaluate, state, user, dead_letters):
    main.add_command(command)
