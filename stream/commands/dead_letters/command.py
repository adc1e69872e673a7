"""The options of `rec2pm dead-letters list | show | replay`."""

import sys
import time
from typing import Literal

import click

from stream.commands.kafka_connection import current_settings, kafka_options, reports_kafka_errors
from stream.commands.output import progress_bar, say


@click.group("dead-letters", short_help="Refused records: list, show and replay them.")
def dead_letters() -> None:
    """Refused records: list them, show why they were refused, and replay them."""


@dead_letters.command("list", short_help="List dead letters, and count them by reason.")
@click.option("--limit", default=50, show_default=True, type=click.IntRange(min=1), help="Show only the newest N.")
@click.option("--json", "as_json", is_flag=True, help="Print one line of JSON per letter, for a program.")
@reports_kafka_errors
def dead_letters_list(limit: int, as_json: bool) -> None:
    """List dead letters, the newest last, and count them by reason.

    The column LETTER is the letter's PARTITION:OFFSET in the dead-letter topic; `show` and `replay` accept it.
    """
    from stream.commands.dead_letters import display, letters
    from stream.commands.dead_letters.read_notes import read_notes
    from stream.errors import BehindOpenTransaction
    from stream.kafka.names import dead_letter_topic
    from stream.kafka.read_topic import partitions
    from stream.kafka.rights import of_dead_letters

    settings = current_settings()
    kafka, topic = kafka_options(settings, *of_dead_letters(settings.names)), dead_letter_topic(settings.app)
    numbers = partitions(kafka, topic)
    notes = read_notes(kafka, settings.app, topic, numbers, "read_uncommitted")
    unread: list[BehindOpenTransaction] = []
    listing = display.listing(letters.readable_letters(kafka, topic, numbers, unread), notes, limit)
    if listing.newest or not unread:
        for line in display.listing_json(listing) if as_json else display.listing_lines(listing, topic):
            say(line)
    if unread:
        raise BehindOpenTransaction("\n".join(map(str, unread)))


def _place(text: str) -> tuple[int, int]:
    partition, colon, offset = text.partition(":")
    if not (colon and partition.isdecimal() and offset.isdecimal() and len(text) < 30):
        raise click.BadParameter(f"{text!r} is not PARTITION:OFFSET, as `rec2pm dead-letters list` shows them: 3:1182")
    return int(partition), int(offset)


@dead_letters.command("show", short_help="Show one dead letter with its headers and value.")
@click.argument("letter", metavar="PARTITION:OFFSET", callback=lambda _, __, text: _place(text))
@click.option("--json", "form", flag_value="json", help="Print JSON, for a program; bytes are base64.")
@click.option("--raw", "form", flag_value="raw", help="Print the bytes of the value and nothing else.")
@reports_kafka_errors
def dead_letters_show(letter: tuple[int, int], form: Literal["json", "raw"] | None) -> None:
    """Show one dead letter: why it was refused, its headers, key and value."""
    from stream.commands.dead_letters import display, letters
    from stream.commands.dead_letters.read_notes import read_notes
    from stream.kafka.names import dead_letter_topic
    from stream.kafka.rights import of_dead_letters

    settings = current_settings()
    kafka, topic = kafka_options(settings, *of_dead_letters(settings.names)), dead_letter_topic(settings.app)
    try:
        message = letters.read_letter(kafka, topic, letter)
    except letters.LetterNotFound as error:
        raise click.ClickException(str(error)) from error
    if form == "raw":
        if lacks := display.left_out(message, "value"):
            raise click.ClickException(lacks)
        if sys.stdout.isatty():
            raise click.UsageError("--raw prints bytes that a terminal may act on: send them to a file or a program")
        click.echo(message.value() or b"", nl=False)
        return
    notes = read_notes(kafka, settings.app, topic, [letter[0]], "read_uncommitted")
    for line in display.details_json(message, notes) if form == "json" else display.details(message, notes):
        say(line)


@dead_letters.command("replay", short_help="Send dead letters to the interactions topic again.")
@click.argument(
    "places", metavar="[PARTITION:OFFSET]...", nargs=-1, callback=lambda _, __, texts: tuple(map(_place, texts))
)
@click.option("--reason", metavar="TEXT", help="Send only letters whose reason contains TEXT.")
@click.option(
    "--max-attempts",
    default=3,
    show_default=True,
    type=click.IntRange(min=1),
    help="Do not send letters that were refused N times or more.",
)
@click.option("--limit", type=click.IntRange(min=1), help="Send only the oldest N.")
@click.option(
    "--again", is_flag=True, help="Send letters that were replayed already, too; needs PARTITION:OFFSET or --reason."
)
@click.option("--execute/--dry-run", default=False, help="Send, or only say what would be sent.  [default: --dry-run]")
@reports_kafka_errors
def dead_letters_replay(
    places: tuple[tuple[int, int], ...],
    reason: str | None,
    max_attempts: int,
    limit: int | None,
    again: bool,
    execute: bool,
) -> None:
    """Send dead letters to the interactions topic again: the given ones, or all that came from it.

    Without --execute, say what would be sent and send nothing. With it, each letter is sent once, however often you run
    this command or interrupt it; only --again sends a letter once more. Key, value, headers and timestamp are the
    original ones. A record that is refused again becomes another dead letter, with one attempt more. A letter that
    names another topic, or that lacks a part of its record, is not sent.

    Run this while a worker runs: where a letter is older than its topic's retention, Kafka soon deletes the record
    again.
    """
    from stream.commands.dead_letters.choose import Selection
    from stream.commands.dead_letters.letters import LetterNotFound
    from stream.commands.dead_letters.replay import lines, preview, replay
    from stream.kafka.names import dead_letter_topic
    from stream.kafka.rights import of_dead_letters, of_replay

    if again and not places and reason is None:
        raise click.UsageError(
            "--again needs PARTITION:OFFSET or --reason: alone, it would send every letter that was ever replayed once more"
        )
    settings = current_settings()
    needed = of_replay(settings.names) if execute else of_dead_letters(settings.names)
    kafka, topic = kafka_options(settings, *needed), dead_letter_topic(settings.app)
    interactions = settings.interactions_topic
    selection = Selection(frozenset(places) or None, reason, max_attempts, limit, again)
    now_ms = time.time_ns() // 1_000_000
    try:
        if execute:
            with progress_bar("replay") as progress:
                outcome = replay(
                    kafka, settings.app, topic, interactions, selection, now_ms, progress, settings.partitioner
                )
        else:
            outcome = preview(kafka, settings.app, topic, interactions, selection, now_ms)
    except LetterNotFound as error:
        raise click.ClickException(f"{error}; nothing was sent") from error
    for line in lines(outcome):
        say(line)
