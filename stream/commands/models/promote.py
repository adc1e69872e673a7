"""`rec2pm models promote`."""

import time
from typing import TYPE_CHECKING, Final

import click

from stream.commands.kafka_connection import current_settings, kafka_options, reports_kafka_errors
from stream.commands.log_options import LogOptions, reading_options
from stream.commands.models.alias import alias_option
from stream.commands.output import say

if TYPE_CHECKING:
    from stream.promotion.promote import Promoted
    from stream.promotion.record import Check

_MARKS: Final = {"passed": "PASS", "failed": "FAIL", "left out": "left out"}


@click.command("promote", short_help="Promote a version, if it passes the gate.")
@click.argument("reference", metavar="REF")
@click.option(
    "--log", metavar="LOG", help="Compare the version with the champion on the newest part of this event log."
)
@reading_options
@click.option(
    "--max-ndcg-drop",
    default=0.01,
    show_default=True,
    type=click.FloatRange(0, 1, min_open=True),
    help="How much NDCG@10 may be lost. LOG must show with 95 % certainty that it is not more.",
)
@click.option(
    "--timeout",
    "timeout_s",
    default=120.0,
    show_default=True,
    type=click.FloatRange(0, min_open=True),
    metavar="SECONDS",
    help="How long one trial of a version may take.",
)
@click.option(
    "--memory-mb",
    type=click.IntRange(min=1),
    help="How much memory one trial may take: that of a worker. [default: what is free here]",
)
@click.option("--force", is_flag=True, help="Pass over failed checks; needs --why. The record names them.")
@click.option("--why", metavar="TEXT", help="Why it is promoted; the record has it.")
@alias_option
@click.option("--dry-run", is_flag=True, help="Run the gate, and promote nothing.")
@reports_kafka_errors
def promote_command(
    reference: str,
    log: str | None,
    reading: LogOptions,
    max_ndcg_drop: float,
    timeout_s: float,
    memory_mb: int | None,
    force: bool,
    why: str | None,
    alias: str,
    dry_run: bool,
) -> None:
    """Promote a version: every worker that follows the alias loads it and serves it from then on.

    REF is NAME (its newest version), NAME@VERSION or NAME@VERSION#SHA256 of the registry, or models:/NAME@ALIAS or
    models:/NAME/VERSION of MLflow.

    Before that, the version goes through the gate: its files, a trial in a process of its own, how many of the newest
    interactions it knows, and, with --log, its accuracy beside the champion's. The exit code is 0 if the version was
    promoted, and 1 if a check failed.
    """
    if force and not (why and why.strip()):
        raise click.UsageError("--force needs --why TEXT: the record says why failed checks were passed over")
    from stream.kafka.rights import of_gate, of_promote
    from stream.promotion.gate import Rules
    from stream.promotion.promote import Wish, promote
    from stream.promotion.who import promoter
    from stream.torch_threads import one_thread

    one_thread()
    settings = current_settings()
    kafka = kafka_options(settings, *(of_gate if dry_run else of_promote)(settings.names))
    promoted = promote(
        settings,
        kafka,
        Wish(
            reference=reference,
            who=promoter(),
            alias=alias,
            why=why,
            force=force,
            log=None if log is None else reading.open(log).interactions,
            rules=Rules(max_ndcg_drop, timeout_s, None if memory_mb is None else memory_mb << 20),
        ),
        now_ms=lambda: time.time_ns() // 1_000_000,
        heard=_say_check,
        dry_run=dry_run,
    )
    for line in outcome_lines(promoted, dry_run=dry_run):
        say(line)
    for warning in promoted.warnings:
        say(f"warning: {warning}", err=True)


def _say_check(check: "Check") -> None:
    say(f"{_MARKS[check.result]} {check.name}: {check.figure}")


def outcome_lines(promoted: "Promoted", *, dry_run: bool) -> list[str]:
    """What was promoted, what it replaces, what becomes of the memories, and how to watch."""
    promotion, before = promoted.promotion, promoted.before
    if dry_run:
        forced = f"; --force passes over {', '.join(promotion.forced)}" if promotion.forced else ""
        return [f"{promotion.version} may become {promotion.alias}{forced}. Nothing was promoted (--dry-run)"]
    replaces = "the first" if before is None else f"in place of {before.version}"
    forced = f", in spite of {', '.join(promotion.forced)}" if promotion.forced else ""
    lines = [f"promoted {promotion.version} as {promotion.alias}, {replaces}{forced} (promotion {promotion.id})"]
    if promoted.same_format is not None:
        lines.append(
            "memories are read as they are: both have the same memory format"
            if promoted.same_format
            else "memories are rebuilt from the kept segments: it has another memory format"
        )
    lines.append("`rec2pm models status --wait` ends when every worker serves it")
    return lines
