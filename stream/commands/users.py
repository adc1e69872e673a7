"""The options of `rec2pm user show | forget` and `rec2pm state export | import`."""

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from stream.commands.kafka_connection import current_settings, kafka_options, reports_kafka_errors
from stream.commands.output import EXIT_ERROR, progress_bar, say

if TYPE_CHECKING:
    from stream.commands.import_state.application import Position


@click.group(short_help="Export or import what is remembered about all users.")
def state() -> None:
    """Export or import what is remembered about all users."""


@state.command("export", short_help="Write every user's state to a Parquet file.")
@click.option(
    "--out", required=True, type=click.Path(dir_okay=False, path_type=Path), help="The Parquet file to write."
)
@reports_kafka_errors
def state_export(out: Path) -> None:
    """Write every user's state to a Parquet file.

    The states are read from the changelog: no worker needs to stop.
    """
    from stream.commands.export_state import export
    from stream.kafka.names import changelog_topic
    from stream.kafka.rights import of_states

    settings = current_settings()
    kafka = kafka_options(settings, *of_states(settings.names))
    with progress_bar("partitions") as progress:
        users = export(kafka, changelog_topic(settings.app), settings.interactions_topic, out, progress)
    say(f"exported {users} users to {out}", err=True)


def _position(_: click.Context, __: click.Parameter, text: str) -> "Position":
    from stream.commands.import_state.application import position

    try:
        return position(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


@state.command("import", short_help="Start a fresh application from a file of states.")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--position",
    "wanted",
    required=True,
    callback=_position,
    metavar="end|file|OFFSETS",
    help="Where workers go on. end: at the present end of the interactions topic. file: where the states of the file end, "
    "in the topic that they were made from. 0:123,1:456: at these offsets.",
)
@click.option(
    "--execute/--dry-run",
    default=False,
    help="Write the states, or only say what would be written.  [default: --dry-run]",
)
@reports_kafka_errors
def state_import(file: Path, wanted: "Position", execute: bool) -> None:
    """Start a fresh application from FILE, as `state export` and a replay write it.

    The states become records of the changelog, and workers go on where --position says. An application that has states
    or committed offsets is refused. A worker reads all states or none: after a kill, run the command again.
    """
    from stream.commands.import_state import words
    from stream.commands.import_state.application import positions, refuse_used, target
    from stream.commands.import_state.states import checked_states, opened
    from stream.commands.import_state.write import Importer
    from stream.kafka.admin import admin_client
    from stream.kafka.rights import of_state_import
    from stream.state_rows import Row

    settings = current_settings()
    facts = opened(file)
    kafka = kafka_options(settings, *of_state_import(settings.names, execute=execute))
    admin = admin_client(settings)
    to = target(settings, admin)
    to.refuse_unplaced(facts, file)
    found = positions(kafka, to, wanted, facts, file)

    def partition_of(row: Row) -> int:
        if wanted == "file":
            to.refuse_moved(row)
        return to.partition_of(row)

    with progress_bar("users looked at") as progress:
        states = checked_states(file, partition_of, progress)
    note = f"{states.sha256} {to.partitioner}"
    # Ends an import that was killed, whose open transaction would hide what is there.
    importer = Importer(kafka, to) if execute else None
    unfinished = refuse_used(kafka, admin, to, note)
    for line in words.plan_lines(states, to, wanted, found):
        say(line)
    if unfinished:
        say("this import was begun before, and was not finished")
    if importer is None:
        say(words.PREVIEW_LINE)
        return
    with progress_bar("users") as progress:
        importer.write(admin, file, states, note, found, progress, noted=unfinished)
    say(words.done_line(states, to))


@click.group(short_help="Show or forget one user.")
def user() -> None:
    """Show what is remembered about one user, or forget the user."""


def _user_id(_: click.Context, __: click.Parameter, user_id: str) -> str:
    from state.interaction import MAX_ID_BYTES

    try:
        size = len(user_id.encode())
    except UnicodeEncodeError:
        raise click.BadParameter("a user id is UTF-8") from None
    if not 0 < size <= MAX_ID_BYTES:
        raise click.BadParameter(f"a user id has 1 to {MAX_ID_BYTES} bytes")
    return user_id


@user.command("show", short_help="Show what is remembered about one user.")
@click.argument("user_id", callback=_user_id)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for a program.")
@reports_kafka_errors
def user_show(user_id: str, as_json: bool) -> None:
    """Show what is remembered about one user, read from the changelog."""
    from stream.commands import export_state
    from stream.kafka.names import changelog_topic
    from stream.kafka.rights import of_states

    settings = current_settings()
    kafka = kafka_options(settings, *of_states(settings.names))
    found = export_state.read_states(kafka, changelog_topic(settings.app), user_id)
    if not found:
        say(f"nothing is remembered about user {user_id!r}", err=True)
        sys.exit(EXIT_ERROR)
    for each in found:
        for line in export_state.state_json(each) if as_json else export_state.state_lines(each):
            say(line)


@user.command("forget", short_help="Forget one user: memory, history and list.")
@click.argument("user_id", callback=_user_id)
@click.option(
    "--execute/--dry-run",
    default=False,
    help="Forget the user, or only show what is remembered.  [default: --dry-run]",
)
@click.option(
    "--wait", default=60.0, show_default=True, type=click.FloatRange(min=0), help="Seconds to wait for a worker."
)
@reports_kafka_errors
def user_forget(user_id: str, execute: bool, wait: float) -> None:
    """Forget one user: their memory, their history and their list.

    Without --execute, show what is remembered and send nothing. With it, send a null value for the user and wait until
    a worker has forgotten them. The exit code is 1 when no worker has done so in time; the next worker that runs does
    it.

    Kafka compacts the changelog and the lists within about a day, as other records arrive. It drops the last trace, the
    user id, within days (max.compaction.lag.ms, delete.retention.ms). The local stores of workers drop it when RocksDB
    compacts. The interactions topic and the dead letters keep what they hold until their own retention ends.
    """
    from stream.commands import forget_user as forget
    from stream.kafka.names import changelog_topic
    from stream.kafka.rights import of_user_forget
    from stream.keys import KeyFormat

    settings = current_settings()
    application = forget.Application(
        kafka_options(settings, *of_user_forget(settings.names, execute=execute)),
        settings.app,
        settings.interactions_topic,
        settings.recommendations_topic,
        changelog_topic(settings.app),
        KeyFormat(settings.key_format),
        settings.partitioner,
    )
    user = user_id.encode()
    try:
        found = forget.find(application, user)
    except ValueError as error:
        raise click.BadParameter(f"{user_id!r} {error}") from error
    for line in forget.found_lines(application, user_id, found):
        say(line)
    if not execute:
        for line in forget.preview_lines(application, found):
            say(line)
        return
    offsets = forget.send(application, user, found.send_to)
    say(forget.sent_line(application, offsets))
    result = forget.wait_until_forgotten(
        application, user, found.before, offsets, wait_s=wait, clock=time.monotonic, sleep=time.sleep
    )
    failed = result in (forget.Outcome.NOT_YET, forget.Outcome.RECORDS_LEFT)
    say(forget.outcome_line(application, result, wait), err=failed)
    if result is forget.Outcome.NOT_YET:
        for line in forget.held_back(application, offsets):
            say(line, err=True)
    if failed:
        sys.exit(EXIT_ERROR)
