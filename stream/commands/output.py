"""What all commands share: exit codes, a progress bar, words for numbers and times."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import click

EXIT_ERROR: Final = 1
EXIT_USAGE: Final = 2


def complain(error: Exception) -> None:
    for line in str(error).splitlines() or [type(error).__name__]:
        click.echo(f"rec2pm: {line}", err=True)


@contextmanager
def progress_bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on stderr: called with (done, of)."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bars:
        bar = bars.add_task(what, total=None)
        yield lambda done, of: bars.update(bar, completed=done, total=of)


def counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def moment(epoch_ms: int) -> str:
    """A time in UTC, to the second."""
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(epoch_ms / 1000))
    except (OverflowError, ValueError, OSError):  # a producer may write any 64-bit number
        return f"{epoch_ms} ms"
