"""What commands share: exit codes, the settings, a progress bar, the log's options, words for numbers and times."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from stream.settings import Settings

EXIT_ERROR: Final = 1
EXIT_USAGE: Final = 2
EXIT_INTERRUPTED: Final = 130


def complain(error: Exception) -> None:
    for line in str(error).splitlines() or [type(error).__name__]:
        click.echo(f"rec2pm: {line}", err=True)


def current_settings() -> Settings:
    return Settings.from_environ(os.environ)


def kafka_options(chosen: Settings) -> dict[str, Any]:
    """The options of a client that a command makes."""
    return {"bootstrap.servers": chosen.bootstrap_servers, **chosen.kafka}


@contextmanager
def progress_bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on stderr: called with (done, of)."""
    console = Console(stderr=True)
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bars:
        bar = bars.add_task(what, total=None)
        yield lambda done, of: bars.update(bar, completed=done, total=of)


def log_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """LOG and the names of its columns."""
    for field in ("timestamp", "item", "user"):
        column = "timestamp" if field == "timestamp" else f"{field}_id"
        command = click.option(
            f"--{field}-column", default=column, show_default=True, help=f"The column with the {field}."
        )(command)
    return click.argument("log")(command)


def counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def moment(epoch_ms: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(epoch_ms / 1000))
