"""The argument LOG and the options that name its columns, of every command that reads an event log."""

from collections.abc import Callable
from typing import Any

import click


def log_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for field in ("timestamp", "item", "user"):
        column = "timestamp" if field == "timestamp" else f"{field}_id"
        command = click.option(
            f"--{field}-column", default=column, show_default=True, help=f"The column of LOG with the {field}."
        )(command)
    return click.argument("log")(command)
