"""The report of a replay: `report.json` for programs, `report.md` and `report.html` for people, and a row
for each user.

The extra `evaluate` installs matplotlib and scipy.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec
import polars as pl

from model.evaluation.replay import compute, document, files, page, pictures, sections
from model.evaluation.replay.cautions import cautions
from model.evaluation.replay.divisions import window_ms
from model.evaluation.replay.files import Replay
from model.evaluation.replay.found import SCHEMA, Finding, Found
from model.evaluation.replay.measures import HR, MRR, NDCG, UNIT, named

REPORT: Final = "report.html"
MARKDOWN: Final = "report.md"
FIGURES: Final = "report.json"
USERS: Final = "per_user.parquet"
SEED: Final = 0


class Checked(Protocol):
    """A check of the log, as an audit makes it. `verdict` is `OK`, `attention` or `FAIL`."""

    @property
    def name(self) -> str: ...
    @property
    def verdict(self) -> str: ...
    @property
    def figure(self) -> str: ...
    @property
    def words(self) -> str: ...


def write(
    out: Path,
    *,
    models: Sequence[str],
    protocol: files.Protocol,
    audit: Sequence[Checked],
    head: Mapping[str, Any],
    seed: int = SEED,
) -> Path:
    """Write `per_user.parquet`, `report.json`, `report.md` and `report.html` into the folder of a replay.

    Args:
        out: the folder with the other files of the replay, see docs/replay-report.md.
        models: the folders of the models in it, at least one; the others are compared with the first.
        protocol: `timeline` counts every interaction, `last-out` the last one of each user.
        audit: what was found about the log.
        head: what was run, for the reader: `log` gives the report its title. Any value that JSON has.
        seed: of the bootstrap.

    Returns:
        The path of `report.html`.

    Raises:
        ReplayIncomplete: a file is missing, or does not belong to the others.
        EvaluationImpossible: no interaction has a list of every model.
    """
    replay = files.opened(out, models, protocol)
    found = figures(replay, protocol, audit, head, seed, out / USERS)
    text = msgspec.json.encode(_rounded(asdict(found)))
    (out / FIGURES).write_bytes(msgspec.json.format(text, indent=2) + b"\n")
    blocks = list(sections.sections(found, pictures.draw(found)))
    title = sections.title(found)
    (out / MARKDOWN).write_text(document.as_markdown(title, blocks), encoding="utf-8")
    (out / REPORT).write_text(page.as_page(title, blocks), encoding="utf-8")
    return out / REPORT


def figures(
    replay: Replay,
    protocol: files.Protocol,
    audit: Sequence[Checked],
    head: Mapping[str, Any],
    seed: int,
    users_file: Path,
) -> Found:
    """Everything that the report says. Writes the row of each user."""
    counts, of_models = compute.counted(replay)
    clean = counts.scored > 0
    rows = replay.scored.filter(~replay.leaks) if clean else replay.scored
    users = compute.per_user(rows, replay.rankings)
    _readable(users, replay).write_parquet(users_file)
    rankings = compute.ranked(replay, rows, users, counts, of_models, seed)
    checks = [Finding(each.name, each.verdict, each.figure, each.words) for each in audit]
    return Found(
        schema=SCHEMA,
        protocol=protocol,
        figures="clean" if clean else "leaked",
        head=dict(head),
        warnings=cautions(protocol, counts, rankings, checks),
        audit=checks,
        counts=counts,
        window_ms=window_ms(counts.from_ms, counts.until_ms),
        seed=seed,
        rankings=rankings,
    )


def _readable(users: pl.DataFrame, replay: Replay) -> pl.DataFrame:
    """`user_id`, `interactions`, and the user's mean HR@10, NDCG@10 and MRR of each ranking."""
    return users.select(
        "user_id",
        pl.col("n").alias("interactions"),
        *(
            (pl.col(named(each, metric)) / UNIT / pl.col("n")).alias(f"{each.name} {label}")
            for each in replay.rankings
            for metric, label in ((HR, "HR@10"), (NDCG, "NDCG@10"), (MRR, "MRR"))
        ),
    )


def _rounded(value: Any) -> Any:
    """The same with ten digits behind the point: the last bits of a sum are the machine's."""
    match value:
        case float():
            return round(value, 10)
        case dict():
            return {str(name): _rounded(each) for name, each in value.items()}
        case list() | tuple():
            return [_rounded(each) for each in value]
        case _:
            return value
