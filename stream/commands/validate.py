"""`rec2pm validate`."""

import sys
import time
from typing import TYPE_CHECKING

import click

from stream.commands.log_options import LogOptions, log_options
from stream.commands.output import EXIT_ERROR, json_line, printable, say
from stream.commands.registry_option import registry_option

if TYPE_CHECKING:
    from model.audit import Finding
    from model.version.registry import ModelVersion

_COLUMNS = 100
"""The width of what is no terminal."""
_STYLES = {"OK": "green", "attention": "yellow", "FAIL": "bold red"}


@click.command(short_help="Audit an event log before it is trained on or replayed.")
@log_options
@click.option(
    "--model",
    "references",
    multiple=True,
    help="NAME, NAME@VERSION or NAME@VERSION#SHA256: what it lacks and has seen of the log; may be repeated.",
)
@registry_option
@click.option(
    "--split",
    default=0.9,
    show_default=True,
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="The share of the log, in time order, before the interactions that are predicted.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for a program.")
def validate(
    log: str, reading: LogOptions, references: tuple[str, ...], registry: str, split: float, as_json: bool
) -> int:
    """Audit an event log: what makes figures from it wrong, or makes them mean something else.

    LOG is Parquet, CSV, other separated text or JSON lines: a file, a folder or a glob. Each finding is OK, attention
    or FAIL. The exit code is 1 if one of them is FAIL.
    """
    from model.audit import Finding, audit, worst
    from model.errors import LogUnreadable

    versions = _versions(registry, references)
    try:
        found = audit(reading.read(log), versions=versions, split=split, now_ms=time.time_ns() // 1_000_000)
    except LogUnreadable as error:
        found = [Finding("reading", "FAIL", "the log cannot be read", f"{error}.")]
    if as_json:
        say(json_line({"log": log, "verdict": worst(found), "findings": found}))
    else:
        _show(found)
    return EXIT_ERROR if worst(found) == "FAIL" else 0


def _versions(registry: str, references: tuple[str, ...]) -> "list[ModelVersion]":
    if not references:
        return []
    from model.version.registry import Registry

    chosen = {version.reference: version for version in map(Registry(registry).resolve, references)}
    return list(chosen.values())


def _show(found: "list[Finding]") -> None:
    """Each finding with its figure, and what it means unless it is OK; then how many there are of each verdict."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column()
    for each in found:
        said = Text(printable(each.figure))
        if each.verdict != "OK":
            said.append(f"\n{printable(each.words)}", style="dim")
        table.add_row(Text(each.verdict, _STYLES[each.verdict]), Text(each.name), said)
    Console(width=None if sys.stdout.isatty() else _COLUMNS, highlight=False).print(table)
    counts = [f"{sum(each.verdict == verdict for each in found)} {verdict}" for verdict in _STYLES]
    say(", ".join(counts))
