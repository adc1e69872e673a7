"""`rec2pm explain`: one list again, with what led to it."""

import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from stream.commands.kafka_connection import current_settings, kafka_options, reports_kafka_errors
from stream.commands.output import counted, json_line, moment, progress_bar, say
from stream.commands.registry_option import registry_option

if TYPE_CHECKING:
    from stream.explain.again import Choice, Explanation, Interaction
    from stream.promotion.record import Models
    from stream.settings import Settings

_PLACE: Final = re.compile(r"([0-9]{1,9})@([0-9]{1,18})")
_ITEMS_SHOWN: Final = 5
"""Of a folded segment, its newest ones."""


def _place(_: click.Context, __: click.Parameter, text: str) -> tuple[int, int]:
    if (found := _PLACE.fullmatch(text)) is None:
        raise click.BadParameter(f"is {text[:60]!r}, expected PARTITION@OFFSET of the interactions topic, as 2@1057")
    return int(found[1]), int(found[2])


@click.command(short_help="Make one list again, and show what led to it.")
@click.argument("place", metavar="PARTITION@OFFSET", callback=_place)
@registry_option
@click.option(
    "--log",
    type=click.Path(exists=True, path_type=Path),
    help="Take the interactions from this log, which `interactions export` wrote, and not from the topic.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for a program.")
@reports_kafka_errors
def explain(place: tuple[int, int], registry: str, log: Path | None, as_json: bool) -> None:
    """Make one list again, and show what led to it.

    PARTITION@OFFSET says after which interaction the list was made. Each list has both. The user's interactions before
    it go through the worker's own step, each with the version that served then. Give the command the settings of the
    workers: REC2PM_RECOMMEND, REC2PM_EXCLUDE, REC2PM_TOP_K, REC2PM_KEEP_SEGMENTS, REC2PM_KEEP_FORMATS.
    """
    from model.version.cache import Cache
    from model.version.registry import Registry
    from model.version.runtime import Runtime
    from state.codec import Mark
    from stream.explain.again import again
    from stream.explain.history import of_log, of_topic
    from stream.kafka.models_topic import read_models
    from stream.kafka.rights import of_explain
    from stream.recommender import Recommender
    from stream.replay.served import version_of
    from stream.step import Rules

    settings = current_settings()
    kafka = kafka_options(settings, *of_explain(settings.names))
    if log is not None:
        history, marks = of_log(settings, kafka, log, *place)
    else:
        with progress_bar("offsets") as bar:
            history, marks = of_topic(settings, kafka, *place, bar)
    promoted = read_models(kafka, settings.app)
    with tempfile.TemporaryDirectory(prefix="rec2pm-explain-") as scratch:
        cache = Cache(Path(scratch) / "models", keep=1)

        def load(mark: Mark) -> Recommender:
            version = version_of(mark, promoted, Registry(registry))
            return Recommender(Runtime.load(cache.fetch(version), version.digest()), mark.promotion)

        rules = Rules(
            settings.recommend, settings.top_k, settings.exclude, settings.keep_segments, settings.keep_formats
        )
        found = again(history, marks, rules, load, Path(scratch) / "store")
    for line in [json_line(found)] if as_json else _lines(found, settings, promoted):
        say(line)


def _lines(found: "Explanation", settings: "Settings", promoted: "Models") -> Iterator[str]:
    """The explanation for people."""
    from stream.commands.models.served import in_words_of

    made, topic = found.recommendation, settings.interactions_topic
    yield f"user {found.user}: the list after item {found.interaction.item}"
    yield f"  interaction     {topic}[{found.partition}] at offset {found.interaction.offset}, {moment(made.as_of)} UTC"
    yield f"  version         {found.version}: {in_words_of(found.promotion, promoted)}"
    yield f"  made from       {_made_from(found)}"
    yield f"  REC2PM_EXCLUDE  {settings.exclude}: {_left_out_words(found, settings.exclude)}"
    if settings.recommend == "interaction":
        yield "  published       if no newer interaction of the user came in the same step: only the newest one gets a list"
    if found.failed:
        yield f"  failed          the model failed on the user's interactions at {_joined(found.failed)}: they are dead letters"
    yield ""
    yield from _choices(found.choices)
    for each in found.left_out:
        yield f"left out: item {each.item} would be number {each.rank}"
    yield ""
    yield from _history(found)


def _made_from(found: "Explanation") -> str:
    folds, newest = len(found.folds), len(found.newest)
    if found.recommendation.source == "popular":
        return "what is popular: the model knows none of the user's items"
    memory = f"a memory of {counted(folds, 'folded segment')}" if folds else "no memory yet"
    if found.missing_segments:
        memory += f", rebuilt without {counted(found.missing_segments, 'segment')} that were not kept"
    return f"{memory}, and {counted(newest, 'newer interaction')}"


def _left_out_words(found: "Explanation", exclude: str) -> str:
    what = {
        "none": "nothing is left out",
        "working": "items in the working memory are left out",
        "kept": "items in the working memory and in kept segments are left out",
    }[exclude]
    return f"{what}, {counted(len(found.left_out), 'item')} here" if exclude != "none" else what


def _choices(choices: "list[Choice]") -> Iterator[str]:
    """The list. Two columns say where an item would be for one part of the history alone."""
    from stream.commands.models.table import table
    from stream.explain.again import DEPTH

    heads: tuple[str, ...] = ("RANK", "ITEM", "SCORE")
    parts = any(each.memory_rank or each.newest_rank for each in choices)
    if parts:
        heads = (*heads, "BY MEMORY ALONE", "BY NEWER ITEMS ALONE")
    rows = [
        (
            str(each.rank),
            str(each.item),
            f"{each.score:.4f}",
            *([str(rank or f"> {DEPTH}") for rank in (each.memory_rank, each.newest_rank)] if parts else []),
        )
        for each in choices
    ]
    yield from table(heads, rows, frozenset(heads) - {"ITEM"})


def _history(found: "Explanation") -> Iterator[str]:
    """What the list was made from, the newest first."""
    from stream.commands.models.table import table

    rows = [_row("newer", "", found.newest)] if found.newest else []
    rows += [_row(f"fold {each.number}", each.version, each.interactions) for each in reversed(found.folds)]
    yield from table(("PART", "FOLDED BY", "OFFSETS", "UNTIL", "ITEMS, THE NEWEST LAST"), rows)


def _row(part: str, version: str, interactions: "list[Interaction]") -> tuple[str, ...]:
    first, last = interactions[0], interactions[-1]
    shown = [each.item for each in interactions[-_ITEMS_SHOWN:]]
    if (more := len(interactions) - len(shown)) > 0:
        shown.insert(0, f"({more} more)")
    return part, version or "-", f"{first.offset}-{last.offset}", moment(last.timestamp), " ".join(shown)


def _joined(offsets: list[int]) -> str:
    return ", ".join(map(str, offsets[:10])) + (f" and {len(offsets) - 10} more" if len(offsets) > 10 else "")
