"""`rec2pm dead-letters list | show | replay`."""

import heapq
import time
from collections import Counter
from typing import Literal

import click

from stream.commands.kafka_connection import current_settings, kafka_options, reports_kafka_errors
from stream.commands.output import counted, progress_bar


@click.group("dead-letters")
def dead_letters() -> None:
    """Records that were refused: why, from where, and sending them in again."""


@dead_letters.command("list")
@click.option("--limit", default=50, show_default=True, type=click.IntRange(min=1), help="Only the newest so many.")
@click.option("--json", "as_json", is_flag=True, help="A line of JSON for each, for a program.")
@reports_kafka_errors
def dead_letters_list(limit: int, as_json: bool) -> None:
    """List dead letters, the newest last, and how many there are of each reason.

    LETTER is a letter's place, by which `show` and `replay` know it.
    """
    import msgspec

    from stream.commands.dead_letters import display, letters, read_notes
    from stream.kafka.read_topic import partitions
    from stream.kafka.topics import dead_letter_topic

    chosen = current_settings()
    kafka, topic = kafka_options(chosen), dead_letter_topic(chosen.app)
    numbers = partitions(kafka, topic)
    known = read_notes.remembered(kafka, chosen.app, topic, numbers, "read_uncommitted")
    reasons = Counter[str]()
    replayed = 0
    newest: list[tuple[int, letters.Place, letters.Letter]] = []
    for each in letters.letters(kafka, topic, numbers):
        reasons[letters.kind(each.refusal)] += 1
        replayed += letters.is_replayed(each, known)
        (heapq.heappush if len(newest) < limit else heapq.heappushpop)(newest, (each.time_ms, each.place, each))
    shown = [each for _, _, each in sorted(newest, key=lambda entry: entry[:2])]
    if as_json:
        for each in shown:
            click.echo(msgspec.json.encode(display.as_json(each, known)))
        return
    if not reasons:
        click.echo(f"no dead letters in {topic}")
        return
    for line in display.table(shown, known):
        click.echo(line)
    count = reasons.total()
    click.echo(
        f"\n{counted(count, 'dead letter')} in {topic}, {replayed} replayed{f'; the newest {limit} are shown' if count > limit else ''}:"
    )
    for line in display.histogram(reasons):
        click.echo(line)


def _place(text: str) -> tuple[int, int]:
    partition, colon, offset = text.partition(":")
    if not (colon and partition.isdecimal() and offset.isdecimal() and len(text) < 30):
        raise click.BadParameter(f"{text!r} is not PARTITION:OFFSET, as `rec2pm dead-letters list` shows them: 3:1182")
    return int(partition), int(offset)


@dead_letters.command("show")
@click.argument("letter", metavar="PARTITION:OFFSET", callback=lambda _, __, text: _place(text))
@click.option("--json", "form", flag_value="json", help="For a program; bytes are base64.")
@click.option("--raw", "form", flag_value="raw", help="The value's bytes and nothing else.")
@reports_kafka_errors
def dead_letters_show(letter: tuple[int, int], form: Literal["json", "raw"] | None) -> None:
    """Show one dead letter: why it was refused, its headers, key and value."""
    import msgspec

    from stream.commands.dead_letters import display, letters, read_notes
    from stream.kafka.topics import dead_letter_topic

    chosen = current_settings()
    kafka, topic = kafka_options(chosen), dead_letter_topic(chosen.app)
    message = letters.found(kafka, topic, letter)
    if message is None:
        raise click.ClickException(
            f"there is no dead letter {letters.written(letter)} in {topic}, or not any more: `rec2pm dead-letters list`"
        )
    if form == "raw":
        click.echo(message.value() or b"", nl=False)
        return
    known = read_notes.remembered(kafka, chosen.app, topic, [letter[0]], "read_uncommitted")
    if form == "json":
        click.echo(msgspec.json.encode(display.details_as_json(message, known)))
        return
    for line in display.details(message, known):
        click.echo(line)


@dead_letters.command("replay")
@click.argument(
    "places", metavar="[PARTITION:OFFSET]...", nargs=-1, callback=lambda _, __, texts: tuple(map(_place, texts))
)
@click.option("--reason", metavar="TEXT", help="Only letters with TEXT in their reason.")
@click.option(
    "--max-attempts",
    default=3,
    show_default=True,
    type=click.IntRange(min=1),
    help="Pass over what was refused so often.",
)
@click.option("--limit", type=click.IntRange(min=1), help="Only the oldest so many.")
@click.option("--again", is_flag=True, help="Also what was replayed already; with places or --reason.")
@click.option("--execute/--dry-run", default=False, help="Send them, or say what would be sent.  [default: --dry-run]")
@reports_kafka_errors
def dead_letters_replay(
    places: tuple[tuple[int, int], ...],
    reason: str | None,
    max_attempts: int,
    limit: int | None,
    again: bool,
    execute: bool,
) -> None:
    """Send dead letters into the topic they came from once more: those at the given places, else all.

    Without --execute it says what it would send. With it, each letter is sent once, however often this is run or
    interrupted; only --again sends it once more. Key, value, headers and timestamp are the original ones. What is
    refused again is another dead letter, with one attempt more. Have a worker running: where the topic's retention is
    shorter than a letter's age, the record soon goes again.
    """
    from stream.commands.dead_letters import choose, send, survey
    from stream.commands.dead_letters.display import histogram
    from stream.commands.dead_letters.letters import written
    from stream.kafka.topics import dead_letter_topic

    if again and not places and reason is None:
        raise click.UsageError(
            "--again is for letters named by place or --reason: without them, all that were ever replayed would be sent once more"
        )
    chosen = current_settings()
    kafka, topic = kafka_options(chosen), dead_letter_topic(chosen.app)
    wanted = choose.Wanted(frozenset(places) or None, reason, max_attempts, limit, again)
    producer = send.begin(kafka, chosen.app) if execute else None
    now_ms = time.time_ns() // 1_000_000
    surveyed = survey.survey(
        kafka, chosen.app, topic, now_ms, "read_uncommitted" if producer is None else "read_committed"
    )
    if missing := sorted(set(places) - {each.place for each in surveyed.letters}):
        raise click.ClickException(
            f"there is no dead letter {', '.join(map(written, missing))} in {topic}, or not any more; nothing was sent"
        )
    plan = choose.choose(surveyed, wanted)
    count = len(plan.send)
    if not surveyed.letters:
        click.echo(f"no dead letters in {topic}")
        return
    done = count
    whither = f", to {', '.join(sorted(plan.topics()))}"
    if not count:
        click.echo("nothing to replay")
    elif producer is None:
        click.echo(f"would send {counted(count, 'dead letter')} in again{whither}")
    else:
        with progress_bar("replay") as progress:
            done = send.send(kafka, chosen.app, topic, producer, surveyed, plan, progress=progress)
        click.echo(f"sent {counted(done, 'dead letter')} in again{whither}")
    for line in histogram(plan.reasons()):
        click.echo(line)
    if done < count:
        click.echo(f"{count - done} were deleted before they could be sent")
    if plan.passed_over:
        click.echo("passed over:")
    for line in histogram({why.value: number for why, number in plan.passed_over.items()}):
        click.echo(line)
    if producer is None and count:
        click.echo("nothing was sent: --execute does it")
