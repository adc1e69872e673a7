"""The argument LOG and the options that say how it is read, of every command that reads an event log."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any, Final

import click
from click.core import ParameterSource

from model.ids import IdType
from model.times import TimeRule, time_range
from stream.commands.output import say

if TYPE_CHECKING:
    from model.log import Log


_SHORT: Final = {
    "user": "user_column",
    "item": "item_column",
    "time": "timestamp_column",
    "event": "event_column",
}
"""What `--columns` calls the parameters."""


@dataclass(frozen=True, slots=True)
class LogOptions:
    """How a log is read."""

    user: str
    item: str
    timestamp: str
    event: str | None
    events: frozenset[str]
    id_type: IdType | None
    times: TimeRule

    def open(self, source: str, attribute_column: str | None = None) -> "Log":
        """Read a log, and say on stderr what a reader should know of it. Raises LogUnreadable."""
        from model.log import facts

        log = self.read(source, attribute_column)
        for line in facts(log):
            say(f"log: {line}", err=True)
        return log

    def read(self, source: str, attribute_column: str | None = None) -> "Log":
        """Read a log. Raises LogUnreadable."""
        from model.log import Columns, open_log

        columns = Columns(self.user, self.item, self.timestamp, attribute_column, self.event)
        return open_log(source, columns, id_type=self.id_type, times=self.times, events=self.events)


def log_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The argument LOG, as `log`, and the options of `reading_options`."""
    return click.argument("log")(reading_options(command))


def reading_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say how a log is read; the command gets them as `reading`, a LogOptions.

    The variables are those of the worker's fields, so one environment describes the log and the topic.
    """

    @wraps(command)
    def run(
        *args: Any,
        user_column: str,
        item_column: str,
        timestamp_column: str,
        event_column: str | None,
        events: str | None,
        id_type: IdType | None,
        time_unit: str,
        time_range: tuple[int, int] | None,
        columns: dict[str, str],
        **kwargs: Any,
    ) -> Any:
        source_of = click.get_current_context().get_parameter_source
        if twice := [name for name in columns if source_of(name) is ParameterSource.COMMANDLINE]:
            raise click.UsageError(f"--columns and --{twice[0].replace('_', '-')} both name a column: give one of them")
        user_column, item_column = columns.get("user_column", user_column), columns.get("item_column", item_column)
        timestamp_column = columns.get("timestamp_column", timestamp_column)
        event_column = columns.get("event_column", event_column)
        if (event_column is None) != (events is None):
            given, missing = ("--event-column", "--events") if events is None else ("--events", "--event-column")
            raise click.UsageError(
                f"{given} needs {missing}: which events are interactions, and the column that has them"
            )
        wanted = frozenset(event.strip() for event in (events or "").split(",")) - {""}
        unit: Any = None if time_unit == "auto" else time_unit
        rule = TimeRule(unit) if time_range is None else TimeRule(unit, *time_range)
        reading = LogOptions(user_column, item_column, timestamp_column, event_column, wanted, id_type, rule)
        return command(*args, reading=reading, **kwargs)

    made: Callable[..., Any] = run
    column = "a name, a path such as `product.id`, or its number in a file without a header."
    for option in (
        click.option(
            "--time-range",
            envvar="REC2PM_TIME_RANGE",
            show_envvar=True,
            metavar="FROM..UNTIL",
            callback=_range,
            help="Plausible times; another time refuses the log. [default: 1990-01-01..2100-01-01]",
        ),
        click.option(
            "--time-unit",
            envvar="REC2PM_TIME_UNIT",
            show_envvar=True,
            type=click.Choice(["auto", "s", "ms", "us", "ns", "iso"]),
            default="auto",
            show_default=True,
            help="The unit of times that are numbers. auto: the size of each number says which. iso: numbers are no times.",
        ),
        click.option(
            "--id-type",
            type=click.Choice(["text", "integer"]),
            help="What ids are where the file cannot say. integer: 00022 and 22.0 are 22. [default: as written]",
        ),
        click.option(
            "--events",
            envvar="REC2PM_EVENTS",
            show_envvar=True,
            metavar="NAMES",
            help="The events that are interactions, with commas between: view,purchase. Others are passed over.",
        ),
        click.option(
            "--event-column",
            envvar="REC2PM_EVENT_FIELD",
            show_envvar=True,
            metavar="NAME",
            help="The column of LOG with the kind of event; needs --events.",
        ),
        _column("timestamp", "timestamp", "REC2PM_TIME_FIELD", f"The column of LOG with the time: {column}"),
        _column("item", "item_id", "REC2PM_ITEM_FIELD", f"The column of LOG with the item: {column}"),
        _column("user", "user_id", "REC2PM_USER_FIELD", f"The column of LOG with the user: {column}"),
        click.option(
            "--columns",
            default="",
            metavar="user=NAME,…",
            callback=_columns,
            help="The columns in one: user=visitorid,item=itemid,time=timestamp,event=event. Others keep their names.",
        ),
    ):
        made = option(made)
    return made


def _column(field: str, default: str, variable: str, text: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    return click.option(
        f"--{field}-column",
        default=default,
        show_default=True,
        envvar=variable,
        show_envvar=True,
        metavar="NAME",
        help=text,
    )


def _columns(_: click.Context, __: click.Parameter, text: str) -> dict[str, str]:
    """What `--columns` names, by the parameter that names one of them."""
    named: dict[str, str] = {}
    for part in filter(None, text.split(",")):
        what, equals, column = part.partition("=")
        parameter = _SHORT.get(what.strip())
        if parameter is None or not equals or not column or parameter in named:
            raise click.BadParameter(
                f"has {part!r}, expected each of user=NAME, item=NAME, time=NAME and event=NAME at most once, with commas between"
            )
        named[parameter] = column
    return named


def _range(_: click.Context, __: click.Parameter, text: str | None) -> tuple[int, int] | None:
    try:
        return None if text is None else time_range(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error
