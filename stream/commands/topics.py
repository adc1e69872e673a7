"""`rec2pm topics create | check`."""

import sys
from typing import TYPE_CHECKING

import click

from stream.commands.kafka_connection import current_settings, kafka_options, reports_kafka_errors
from stream.commands.output import EXIT_ERROR, counted, say

if TYPE_CHECKING:
    from stream.kafka.topics import TopicSpec
    from stream.settings import Settings


@click.group(short_help="Create or check the application's topics.")
def topics() -> None:
    """Create or check the application's topics."""


@topics.command("create", short_help="Create the topics that do not exist yet.")
@click.option(
    "--partitions",
    default=4,
    show_default=True,
    type=click.IntRange(1, 10_000),
    help="Partitions of the interactions, the recommendations, the changelog and the dead letters.",
)
@click.option(
    "--replication",
    default=1,
    show_default=True,
    type=click.IntRange(1, 100),
    help="Replication factor; 3 in production.",
)
@click.option("--dry-run", is_flag=True, help="Say what would be created, and create nothing.")
@reports_kafka_errors
def topics_create(partitions: int, replication: int, dry_run: bool) -> None:
    """Create the topics that do not exist yet. Topics that exist are left as they are."""
    from stream.kafka import topics as plans
    from stream.kafka.admin import admin_client

    settings = current_settings()
    planned = plans.plan(
        settings.app, settings.interactions_topic, settings.recommendations_topic, partitions, replication
    )
    if dry_run:
        for spec in planned:
            say(f"would create {_line(spec)}")
        return
    outcomes = plans.create(admin_client(settings), planned)
    for outcome in outcomes:
        say(f"{outcome.result:<8} {_line(outcome.topic)}{f': {outcome.reason}' if outcome.reason else ''}")
    if any(outcome.result == "refused" for outcome in outcomes):
        sys.exit(EXIT_ERROR)


def _line(topic: "TopicSpec") -> str:
    config = ", ".join(f"{name}={value}" for name, value in topic.config.items())
    return f"{topic.name} ({topic.purpose}): {counted(topic.partitions, 'partition')}, {config}"


@topics.command("check", short_help="Check that the topics fit each other.")
@reports_kafka_errors
def topics_check() -> None:
    """Check that the topics exist, with the right partitions and cleanup policies, and look at what producers send.

    The newest thousand records of the interactions are read as a worker reads them: keys, partitions, times, items, and
    what would be refused. The exit code is 0 when a worker can start and would not stop because of them.
    """
    from stream.kafka import topics as plans
    from stream.kafka.admin import admin_client

    settings = current_settings()
    problems = plans.check(
        admin_client(settings), settings.app, settings.interactions_topic, settings.recommendations_topic
    )
    for problem in problems:
        say(f"{'FAIL' if problem.severity == 'error' else 'WARN'} {problem.line}")
    if any(problem.severity == "error" for problem in problems):
        sys.exit(EXIT_ERROR)
    say("PASS every topic exists and fits the others")
    if not _say_sample(settings):
        sys.exit(EXIT_ERROR)


def _say_sample(settings: "Settings") -> bool:
    """Say what the newest records of the input are like. False if a worker would stop."""
    from stream.commands.check_sample import RECORDS, WITHIN_S, sample_lines
    from stream.kafka.sample import newest

    sample = newest(kafka_options(settings), settings.interactions_topic, RECORDS, WITHIN_S)
    lines = sample_lines(sample, settings)
    for line in lines:
        say(f"{line.mark} {line.text}")
    return all(line.severity != "error" for line in lines)
