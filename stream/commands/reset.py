"""`rec2pm reset`: everything of an application is removed, so that it can begin anew."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import click

from stream.commands.kafka_connection import current_settings, reports_kafka_errors
from stream.commands.output import counted, say

if TYPE_CHECKING:
    from stream.kafka.removal import Owned


@click.command(short_help="Remove everything of an application.")
@click.option("--interactions", is_flag=True, help="Remove the interactions topic too.")
@click.option(
    "--execute/--dry-run",
    default=False,
    help="Remove it, or only say what would be removed.  [default: --dry-run]",
)
@reports_kafka_errors
def reset(interactions: bool, execute: bool) -> None:
    """Remove everything of an application, so that it can begin anew from the first interaction.

    These are its topics but for the interactions, its consumer groups with their offsets, and its folder of state on
    this machine. Model versions, and the log of a trainer, stay. Stop all workers, views and trainers first. After a
    reset, `rec2pm topics create` makes the topics again.
    """
    from stream.errors import ApplicationBusy, KafkaUnusable
    from stream.kafka.admin import admin_client
    from stream.kafka.removal import owned, remove_groups, remove_topics
    from stream.kafka.rights import missing, of_reset

    settings = current_settings()
    admin = admin_client(settings)
    found = owned(admin, settings.names, interactions=interactions)
    groups = [group.name for group in found.groups]
    # Kafka does not list a group that these credentials may not see, and the workers' offsets must not stay.
    needed = of_reset(settings.names, interactions=interactions, groups=sorted({*groups, settings.app}))
    if execute and (lacking := missing(admin, needed)):
        raise KafkaUnusable("\n".join(right.line() for right in lacking))
    folder = settings.state_dir / settings.app
    if busy := found.busy:
        raise ApplicationBusy(
            "\n".join(
                f"group {group.name} has {counted(len(group.members), 'member')}: {', '.join(group.members)}. Stop "
                "them first. Kafka keeps one that was killed, or has a name (REC2PM_WORKER), until its session times out"
                for group in busy
            )
        )
    if live := _live(folder):
        raise ApplicationBusy(f"{folder}: worker {', '.join(live)} runs on this machine: stop it first")
    for line in _lines(found, folder, execute=execute):
        say(line)
    if not execute:
        say("nothing was removed: add --execute to remove it")
        return
    # Offsets without the state that belongs to them would make workers refuse to start. So the groups go first: a reset
    # that is interrupted after them leaves an application that begins anew, or that the same command removes.
    remove_groups(admin, groups)
    remove_topics(admin, found.topics)
    shutil.rmtree(folder, ignore_errors=True)
    say("done: `rec2pm topics create` makes the topics again")


def _lines(found: "Owned", folder: Path, *, execute: bool) -> list[str]:
    verb = "removes" if execute else "would remove"
    lines = [f"{verb} topic {topic}" for topic in found.topics]
    lines += [f"{verb} group {group.name} and its offsets" for group in found.groups]
    lines += [f"{verb} folder {folder} on this machine"] if folder.exists() else []
    return lines or ["there is nothing of this application"]


def _live(folder: Path) -> list[str]:
    """The workers that run on this folder of state: each has locked the file of its name."""
    import os

    from model.version.file_lock import lock

    slots = folder / "slots"
    live = []
    for path in sorted(slots.iterdir()) if slots.is_dir() else ():
        if (descriptor := lock(path)) is None:
            live.append(path.name)
        else:
            os.close(descriptor)
    return live
