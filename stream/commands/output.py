"""What all commands share: how a line is printed, exit codes, a progress bar, words for numbers and times.

Ids, headers, names of topics and texts of errors come from others. A terminal acts on some characters, and a new line
in an id would look like a line of ours. So each line that a command prints, and each message of the log, goes through
`printable`, here and nowhere else; a test looks for commands that print by themselves.
"""

import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import click

EXIT_ERROR: Final = 1
EXIT_USAGE: Final = 2


def printable(text: str) -> str:
    r"""The text as one line on which no terminal acts.

    Controls, line ends, marks that change the direction of writing and other characters that cannot be seen are
    written as in Python: `\x1b`, `\n`, `\u202e`.
    """
    return text if text.isprintable() else "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)


def say(line: str, *, err: bool = False) -> None:
    """Print one line: data to stdout, what is said about it to stderr."""
    click.echo(printable(line), err=err)


def json_line(value: Any) -> str:
    """A value as JSON in one line, in which characters that are not printable are escaped."""
    import msgspec

    text = msgspec.json.encode(value).decode()
    # Such a character can only be inside a string: elsewhere this JSON has none, not even spaces.
    return (
        text if text.isprintable() else "".join(each if each.isprintable() else json.dumps(each)[1:-1] for each in text)
    )


def complain(error: Exception) -> None:
    """Say on stderr why a command ends. Where the log has JSON lines, this is one, too."""
    if any(isinstance(handler.formatter, JsonFormatter) for handler in logging.getLogger().handlers):
        logging.getLogger("rec2pm").error("%s", str(error) or type(error).__name__)
        return
    for line in str(error).split("\n") if str(error) else [type(error).__name__]:
        say(f"rec2pm: {line}", err=True)


class PlainFormatter(logging.Formatter):
    """Log lines: one per message. Only a traceback has more."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # the base class's name
        record.message = printable(record.message)
        return super().formatMessage(record)

    def formatException(self, ei: Any) -> str:  # noqa: N802  # the base class's name
        return "\n".join(map(printable, super().formatException(ei).split("\n")))


class JsonFormatter(logging.Formatter):
    """Log lines for programs: one JSON object each, with `time` (UTC), `level`, `logger`, `message`, and `exception`
    where there is a traceback.
    """

    def format(self, record: logging.LogRecord) -> str:
        told = {
            "time": f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(record.created))}.{int(record.msecs):03d}Z",
            "level": record.levelname,
            "logger": record.name,
            "message": printable(record.getMessage()),
        }
        if record.exc_info:
            told["exception"] = "\n".join(map(printable, self.formatException(record.exc_info).split("\n")))
        return json_line(told)


LOG_FORMATS: Final[Mapping[str, Callable[[], logging.Formatter]]] = {"text": PlainFormatter, "json": JsonFormatter}
"""The values of REC2PM_LOG_FORMAT."""


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
