"""`rec2pm topics create | check`."""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from stream.commands.kafka_connection import current_settings, kafka_options, reports_kafka_errors
from stream.commands.output import EXIT_ERROR, counted, say

if TYPE_CHECKING:
    from confluent_kafka.admin import AdminClient

    from stream.kafka.topic_problems import Problem
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
@click.option(
    "--output",
    type=click.Choice(["strimzi"]),
    help="Print the topics, and the users of worker, trainer and view, as objects of Strimzi. Kafka is not asked, and "
    "nothing is created.",
)
@click.option("--cluster", default="kafka", show_default=True, help="With --output strimzi: the name of its Kafka.")
@reports_kafka_errors
def topics_create(partitions: int, replication: int, dry_run: bool, output: str | None, cluster: str) -> None:
    """Create the topics that do not exist yet. Topics that exist are left as they are.

    New topics get as many partitions as the interactions topic has, if that exists. The exit code is 0 when a worker
    can start.
    """
    settings = current_settings()
    if output == "strimzi":
        _say_objects(settings, partitions, replication, cluster)
        return
    from stream.kafka import topics as plans
    from stream.kafka.admin import admin_client

    admin = admin_client(settings)
    existing = plans.width(admin, settings.app, settings.interactions_topic)
    planned = plans.plan(
        settings.app,
        settings.interactions_topic,
        settings.recommendations_topic,
        partitions if existing is None else existing,
        replication,
    )
    before = plans.as_they_are(admin, planned)
    if dry_run:
        for spec in planned:
            say(_exists(spec, before) if spec.name in before else f"would create {_planned(spec)}")
        _say_width(settings, existing, partitions)
        return
    outcomes = plans.create(admin, planned)
    after = plans.as_they_are(admin, planned)
    for outcome in outcomes:
        spec = outcome.topic
        if outcome.result == "refused":
            say(f"refused  {_planned(spec)}: {outcome.reason}")
        elif outcome.result == "created":
            say(f"created  {_title(spec)}: {after.get(spec.name, 'not listed yet')}")
        else:
            say(_exists(spec, after))
    _say_width(settings, existing, partitions)
    refused = any(outcome.result == "refused" for outcome in outcomes)
    # A refused topic has its line. The others say what stands between the topics and a worker.
    if _say(_problems(admin, settings) if not refused else []) or refused:
        sys.exit(EXIT_ERROR)


def _say_objects(settings: "Settings", partitions: int, replication: int, cluster: str) -> None:
    from stream.kafka import strimzi
    from stream.kafka.topics import plan

    on = settings.names
    planned = plan(on.app, on.interactions, on.recommendations, partitions, replication)
    objects = [(spec.purpose, strimzi.topic(spec, cluster)) for spec in planned]
    objects[0] = ("interactions, the input: leave this out if another one makes the topic", objects[0][1])
    objects += [("what a process may do", user) for user in strimzi.users(on, cluster)]
    for line in strimzi.as_yaml(objects):
        say(line)


def _exists(spec: "TopicSpec", found: "dict[str, str]") -> str:
    return f"exists   {_title(spec)}: {found.get(spec.name, 'these credentials may not see it')}"


def _planned(spec: "TopicSpec") -> str:
    config = ", ".join(f"{name}={value}" for name, value in spec.config.items())
    copies = "" if spec.replication is None else f", replication {spec.replication}"
    return f"{_title(spec)}: {counted(spec.partitions, 'partition')}{copies}, {config}"


def _title(spec: "TopicSpec") -> str:
    return f"{spec.name} ({spec.purpose})"


def _say_width(settings: "Settings", existing: int | None, asked: int) -> None:
    """Say that the number of partitions that was asked for is not the number that there is."""
    parameter = click.get_current_context().get_parameter_source("partitions")
    if existing is None or existing == asked or parameter is None or parameter.name == "DEFAULT":
        return
    say(
        f"NOTE {settings.app} has {counted(existing, 'partition')}, not {asked}: topics that exist are not changed, and "
        f"new ones must fit them. If at most {counted(existing, 'worker')} can do the work, nothing is to do. For {asked} "
        "partitions, set a new REC2PM_APP and a new REC2PM_INTERACTIONS_TOPIC, and run `rec2pm topics create` again"
    )


@topics.command("check", short_help="Check that the topics fit each other, and the rights.")
@reports_kafka_errors
def topics_check() -> None:
    """Check that a worker can start: the topics fit each other, and these credentials may do what a worker does.

    Run it with the credentials of a worker. The newest thousand records of the interactions are then read as a worker
    reads them: keys, partitions, times, items, and what would be refused. The exit code is 0 when a worker can start,
    and would not stop because of them.
    """
    from stream.kafka.admin import admin_client

    settings = current_settings()
    admin = admin_client(settings)
    if _say(_problems(admin, settings)):
        sys.exit(EXIT_ERROR)
    say("PASS every topic exists and fits the others, and nothing that a worker does is forbidden")
    if not _say_sample(admin, settings):
        sys.exit(EXIT_ERROR)


def _problems(admin: "AdminClient", settings: "Settings") -> "list[Problem]":
    """Everything that is checked, errors first."""
    from stream.kafka.topic_problems import check, check_transactions

    found = check(admin, settings.app, settings.interactions_topic, settings.recommendations_topic)
    found += check_transactions({"bootstrap.servers": settings.bootstrap_servers, **settings.kafka}, settings.app)
    return sorted(found, key=lambda problem: problem.severity)


def _say(problems: "Sequence[Problem]") -> bool:
    """Print the problems, a line each. True if a worker must not start."""
    for problem in problems:
        say(f"{'FAIL' if problem.severity == 'error' else 'WARN'} {problem.line}")
    return any(problem.severity == "error" for problem in problems)


def _say_sample(admin: "AdminClient", settings: "Settings") -> bool:
    """Say what the newest records of the input are like. False if a worker would stop."""
    from stream.commands.check_sample import RECORDS, WITHIN_S, sample_lines
    from stream.kafka.sample import newest

    sample = newest(admin, kafka_options(settings), settings.interactions_topic, RECORDS, WITHIN_S)
    lines = sample_lines(sample, settings)
    for line in lines:
        say(f"{line.mark} {line.text}")
    return all(line.severity != "error" for line in lines)
