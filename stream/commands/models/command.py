"""The options of `rec2pm models`."""

import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from stream.commands.kafka_connection import current_settings, kafka_options, reports_kafka_errors
from stream.commands.models.alias import alias_option
from stream.commands.models.promote import promote_command
from stream.commands.output import EXIT_ERROR, say

if TYPE_CHECKING:
    from stream.promotion.record import Models
    from stream.settings import Settings


@click.group(short_help="Versions of models, and which one serves.")
def models() -> None:
    """Versions of models, and which one serves.

    A version is NAME@VERSION, or NAME for its newest one, or `champion` for the one that should serve.
    """


@models.command("list", short_help="List the versions of the registry.")
@click.option("--json", "as_json", is_flag=True, help="Print one line of JSON per version, for a program.")
@reports_kafka_errors
def models_list(as_json: bool) -> None:
    """List the versions of the registry (REC2PM_MODELS), and which aliases name them.

    Kafka says what the aliases name. Without Kafka, versions are listed all the same.
    """
    from confluent_kafka import KafkaException

    from model.version.registry import Registry
    from stream.commands.models.facts import facts
    from stream.commands.models.listing import listing_json, listing_lines
    from stream.commands.models.reference import promoted
    from stream.errors import StreamError

    settings = current_settings()
    registry = Registry(settings.models)
    versions = [facts(version) for name in registry.names() for version in registry.versions(name)]
    known = None
    try:
        known = promoted(settings)
    except (StreamError, KafkaException) as error:
        say(f"aliases are not shown: {error}", err=True)
    for line in (listing_json if as_json else listing_lines)(versions, known):
        say(line)
    if not versions:
        say(f"the registry {settings.models} has no whole version", err=True)


@models.command("show", short_help="Show everything about a version.")
@click.argument("reference", metavar="REF")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for a program: the manifest.")
@reports_kafka_errors
def models_show(reference: str, as_json: bool) -> None:
    """Show everything that a version's manifest says: what it is, what it was trained on, how well it did.

    REF is NAME, NAME@VERSION or `champion`.
    """
    from stream.commands.models.facts import facts
    from stream.commands.models.reference import version_of
    from stream.commands.models.show import show_json, show_lines

    version = facts(version_of(current_settings(), reference))
    for line in [show_json(version)] if as_json else show_lines(version):
        say(line)


@models.command("verify", short_help="Check that a version can serve.")
@click.argument("reference", metavar="REF")
@reports_kafka_errors
def models_verify(reference: str) -> None:
    """Check each file of a version against its manifest, then try it in a process of its own, as a worker does.

    The exit code is 1 if something is wrong.
    """
    from stream.commands.models.reference import version_of
    from stream.commands.models.verify import verified

    failed = False
    for line in verified(version_of(current_settings(), reference, whole_or_not=True)):
        say(f"{line.mark} {line.text}")
        failed = failed or line.mark == "FAIL"
    if failed:
        sys.exit(EXIT_ERROR)


@models.command("diff", short_help="Show what differs between two versions.")
@click.argument("old", metavar="REF")
@click.argument("new", metavar="REF")
@click.option("--measure", is_flag=True, help="Try both, each in a process of its own: speed and memory.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for a program.")
@reports_kafka_errors
def models_diff(old: str, new: str, measure: bool, as_json: bool) -> None:
    """Show what differs between two versions: memory format, catalogue, accuracy, configuration, and what they cost."""
    from stream.commands.models.diff import difference, difference_json, difference_lines
    from stream.commands.models.facts import facts
    from stream.commands.models.reference import version_of
    from stream.commands.models.verify import measured

    settings = current_settings()
    versions = {"old": version_of(settings, old), "new": version_of(settings, new)}
    sides = {name: facts(version) for name, version in versions.items()}
    found = difference(
        sides["old"], sides["new"], {name: measured(each.files) for name, each in sides.items()} if measure else {}
    )
    for line in [difference_json(found)] if as_json else difference_lines(found):
        say(line)


models.add_command(promote_command)


@models.command("status", short_help="Show which worker serves what.")
@alias_option
@click.option("--wait", is_flag=True, help="Wait until every worker of the group serves it.")
@click.option(
    "--timeout", default=300.0, show_default=True, type=click.FloatRange(min=0), help="Seconds to wait, with --wait."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for a program.")
@reports_kafka_errors
def models_status(alias: str, wait: bool, timeout: float, as_json: bool) -> None:
    """Show which version should serve, and what each worker serves, loads or refuses, and why.

    The exit code is 0 when something is promoted and every worker of the group serves it. Kafka says who is in the
    group: a worker that was killed stays there until its session ends.
    """
    from stream.commands.models.status import status, status_json, status_lines, wait_until_settled
    from stream.kafka.admin import admin_client
    from stream.kafka.rights import of_models_status

    settings = current_settings()
    kafka = kafka_options(settings, *of_models_status(settings.names))
    admin = admin_client(settings)
    found = status(kafka, settings.app, alias, admin, _now_ms())
    if wait and not found.settled:
        wait_until_settled(kafka, settings.app, alias, admin, timeout_s=timeout, said=lambda line: say(line, err=True))
        found = status(kafka, settings.app, alias, admin, _now_ms())
    for line in [status_json(found)] if as_json else status_lines(found):
        say(line)
    if not found.settled:
        sys.exit(EXIT_ERROR)


@models.command("history", short_help="List what was promoted, the newest first.")
@click.option("--limit", default=20, show_default=True, type=click.IntRange(min=1), help="Show only the newest N.")
@click.option("--user", metavar="ID", help="Show instead which versions made this user's lists.")
@click.option("--at", metavar="TIME", help="With --user: only the version of this time, as 2026-11-28T22:40:00Z (UTC).")
@click.option("--json", "as_json", is_flag=True, help="Print a line of JSON for each, for a program.")
@reports_kafka_errors
def models_history(limit: int, user: str | None, at: str | None, as_json: bool) -> None:
    """List what was promoted, the newest first: when, by whom, from which version, why, and the figures of the gate.

    With --user, list which versions served the user's partition, from which interaction on. Workers write that down in
    the transaction of the first step that a version serves.
    """
    if at is not None and user is None:
        raise click.UsageError("--at needs --user: which version served depends on the user's partition")
    from stream.commands.models.history import history_json, history_lines
    from stream.kafka.models_topic import read_models
    from stream.kafka.rights import of_models, of_models_history_of_user

    settings = current_settings()
    needed = of_models(settings.names) if user is None else of_models_history_of_user(settings.names)
    kafka = kafka_options(settings, *needed)
    known = read_models(kafka, settings.app)
    if user is not None:
        lines = _served(settings, kafka, known, user, at, as_json=as_json)
    else:
        lines = list((history_json if as_json else history_lines)(known.newest_first()[:limit]))
    for line in lines:
        say(line)
    if user is None and len(known.history) > limit:
        say(f"{len(known.history) - limit} older ones are left out: see --limit", err=True)
    if user is None and not known.history:
        say(f"nothing was promoted in {settings.app} yet", err=True)


def _served(
    settings: "Settings", kafka: "Mapping[str, Any]", known: "Models", user: str, at: str | None, *, as_json: bool
) -> list[str]:
    from stream.commands.models import served
    from stream.keys import KeyFormat

    when_ms = None if at is None else served.at_ms(at)
    topic = settings.interactions_topic
    found = served.served(
        kafka,
        settings.app,
        user,
        interactions=topic,
        keys=KeyFormat(settings.key_format),
        partitioner=settings.partitioner,
    )
    if when_ms is not None:
        found = served.at(found, when_ms)
    if not found:
        raise click.ClickException(f"no version has served user {user!r}" + ("" if at is None else f" at {at}"))
    return list((served.served_json if as_json else served.served_lines)(found, known, topic))


@models.command("rollback", short_help="Promote the version before the current one.")
@alias_option
@click.option("--why", metavar="TEXT", help="Why; it is written into the history.")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
@reports_kafka_errors
def models_rollback(alias: str, why: str | None, dry_run: bool) -> None:
    """Promote the version that served before the current one. No check stands in the way.

    A second rollback goes one version further back.
    """
    from stream.commands.models.rollback import rollback_lines
    from stream.kafka.models_topic import publish, read_models
    from stream.kafka.rights import of_promotion
    from stream.promotion.rollback import rollback
    from stream.promotion.who import promoter

    settings = current_settings()
    kafka = kafka_options(settings, *of_promotion(settings.names))
    known = read_models(kafka, settings.app)
    promotion = rollback(known, alias, who=promoter(), when_ms=_now_ms(), why=why)
    if promotion is None:
        current = known.aliases.get(alias)
        raise click.ClickException(
            f"there is nothing to roll back: nothing is promoted as {alias}"
            if current is None
            else f"there is nothing to roll back to: nothing was promoted as {alias} before {current.version}. "
            "`rec2pm models promote` promotes the version that you want"
        )
    for line in rollback_lines(known, promotion, dry_run=dry_run):
        say(line)
    if not dry_run:
        publish(kafka, settings.app, promotion)
        say(f"done. `rec2pm models status --wait` ends when every worker serves {promotion.version}")


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
