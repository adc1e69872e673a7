"""`rec2pm user show | forget` and `rec2pm state export`."""

import sys
import time
from pathlib import Path

import click

from state.interaction import MAX_ID_BYTES
from stream.commands.kafka_connection import current_settings, kafka_options, reports_kafka_errors
from stream.commands.output import EXIT_ERROR, counted, moment, progress_bar


@click.group()
def state() -> None:
    """What is remembered about users."""


@state.command("export")
@click.option(
    "--out", required=True, type=click.Path(dir_okay=False, path_type=Path), help="The Parquet file to write."
)
@reports_kafka_errors
def state_export(out: Path) -> None:
    """Write every user's state to a Parquet file, read from the changelog: no worker needs to stop."""
    from stream.commands.export_state import export

    chosen = current_settings()
    with progress_bar("partitions") as progress:
        users = export(kafka_options(chosen), f"{chosen.app}.changelog", out, progress)
    click.echo(f"exported {users} users to {out}", err=True)


@click.group()
def user() -> None:
    """One user."""


def _known_length(_: click.Context, __: click.Parameter, user_id: str) -> str:
    if not 0 < len(user_id.encode()) <= MAX_ID_BYTES:
        raise click.BadParameter(f"a user id has 1 to {MAX_ID_BYTES} bytes")
    return user_id


@user.command("show")
@click.argument("user_id", callback=_known_length)
@click.option("--json", "as_json", is_flag=True, help="For a program.")
@reports_kafka_errors
def user_show(user_id: str, as_json: bool) -> None:
    """Show what is remembered about one user, read from the changelog."""
    import msgspec

    from stream.commands.export_state import show

    chosen = current_settings()
    found = show(kafka_options(chosen), f"{chosen.app}.changelog", user_id)
    if not found:
        click.echo(f"nothing is remembered about user {user_id!r}", err=True)
        sys.exit(EXIT_ERROR)
    for shown in found:
        if as_json:
            click.echo(
                msgspec.json.encode(
                    {**msgspec.structs.asdict(shown.state), "kept_segments": shown.kept_segments}
                ).decode()
            )
            continue
        row = shown.state
        click.echo(f"user {row.user_id} (partition {row.partition})")
        click.echo(f"  interactions remembered  {row.taken}, the newest at {moment(row.as_of)} UTC")
        memory = f"{len(row.memory)} floats of {row.memory_format}" if row.folds else "none yet"
        click.echo(f"  preference memory        {row.folds} segments folded, {memory}")
        click.echo(f"  working memory           {len(row.working_items)} items: {' '.join(row.working_items)}")
        for age, segment in enumerate(reversed(shown.kept_segments)):
            click.echo(f"  folded segment {row.folds - 1 - age:<9} {' '.join(segment)}")


@user.command("forget")
@click.argument("user_id", callback=_known_length)
@click.option(
    "--execute/--dry-run", default=False, help="Forget them, or say what is remembered.  [default: --dry-run]"
)
@click.option(
    "--wait", default=60.0, show_default=True, type=click.FloatRange(min=0), help="Seconds for a worker to do it."
)
@reports_kafka_errors
def user_forget(user_id: str, execute: bool, wait: float) -> None:
    """Forget one user: their memories and their list.

    Without --execute it says what is remembered. With it, a null value is sent for the user, and the command waits
    until a worker has forgotten them; exit code 1 when none has in time: then the next one does.

    Kafka compacts the changelog and the lists within about a day, and drops the last trace, the user id, within days
    (max.compaction.lag.ms, delete.retention.ms), as other records come; workers' local stores, as RocksDB compacts. The
    interactions topic and dead letters keep what they hold until their own retention.
    """
    from stream.commands import forget_user
    from stream.kafka.read_topic import partitions
    from stream.kafka.topics import changelog_topic

    chosen = current_settings()
    kafka, changelog, user = kafka_options(chosen), changelog_topic(chosen.app), user_id.encode()
    before = forget_user.look(kafka, changelog, user, partitions(kafka, changelog))
    out = forget_user.listed(kafka, chosen.recommendations_topic, user)
    numbers = forget_user.addressed(kafka, chosen.interactions_topic, user, before.known)
    for each in before.known:
        click.echo(
            f"{changelog}[{each.partition}]: {counted(each.taken, 'interaction')} remembered, {counted(each.folds, 'segment')} folded, "
            f"{each.kept_segments} kept; in {counted(each.records, 'record')}"
        )
    if not before.known:
        click.echo(f"nothing is remembered about user {user_id!r}")
    if out is not None:
        click.echo(f"{chosen.recommendations_topic}[{out}]: a list is out")
    if not execute:
        places = ", ".join(f"{chosen.interactions_topic}[{number}]" for number in numbers)
        click.echo(f"would send a null value to {places}\nnothing was sent: --execute does it")
        return
    offsets = forget_user.send(kafka, chosen.interactions_topic, user, numbers)
    click.echo(
        f"sent a null value to {', '.join(f'{chosen.interactions_topic}[{number}]@{at}' for number, at in sorted(offsets.items()))}"
    )
    if not forget_user.taken(
        kafka, chosen.app, chosen.interactions_topic, offsets, wait_s=wait, clock=time.monotonic, sleep=time.sleep
    ):
        click.echo(
            f"not forgotten yet: no worker of {chosen.app} has taken it within {wait:g} s; the next one to run does",
            err=True,
        )
        sys.exit(EXIT_ERROR)
    after = forget_user.look(kafka, changelog, user, numbers)
    if any(each.first_offset < before.reached[each.partition] for each in after.known):
        click.echo(
            f"not forgotten: {changelog} still has records from before, though a worker has taken the null value",
            err=True,
        )
        sys.exit(EXIT_ERROR)
    click.echo(
        "forgotten"
        if not after.known
        else "forgotten, and active again since: what came after the null value is remembered"
    )
