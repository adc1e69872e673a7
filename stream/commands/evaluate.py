"""`rec2pm evaluate`."""

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import click
from click.core import ParameterSource

from stream.commands.log_options import LogOptions, log_options
from stream.commands.output import progress_bar, say
from stream.commands.registry_option import registry_option


@click.command(short_help="Compare model versions on an event log.")
@log_options
@click.option(
    "--model",
    "references",
    required=True,
    multiple=True,
    help="NAME, NAME@VERSION or NAME@VERSION#SHA256; may be repeated: the others are compared with the first.",
)
@registry_option
@click.option(
    "--out",
    default=Path("var/evaluation"),
    show_default=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="The folder for the report.",
)
@click.option(
    "--split",
    type=click.Choice(["last-out", "time"]),
    default="last-out",
    show_default=True,
    help="What is predicted: the last interaction of each user, or their first one after a point in time.",
)
@click.option(
    "--at",
    default=0.9,
    show_default=True,
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="That point in time, as a share of the log; only with --split time.",
)
@click.option("--users", type=click.IntRange(min=1), help="Evaluate only N users, drawn by the seed. [default: all]")
@click.option(
    "--seed",
    default=0,
    show_default=True,
    type=click.IntRange(min=0),
    help="Seed of everything that is drawn at random.",
)
def evaluate(
    log: str,
    reading: LogOptions,
    references: tuple[str, ...],
    registry: str,
    out: Path,
    split: Literal["last-out", "time"],
    at: float,
    users: int | None,
    seed: int,
) -> None:
    """Compare model versions on an event log: accuracy side by side, and how much their memories add.

    LOG is Parquet, CSV, other separated text or JSON lines: a file, a folder or a glob. The command
    writes report.md with pictures, and metrics.json.
    """
    from model.errors import how_to_install

    if missing := [name for name in ("matplotlib", "scipy") if find_spec(name) is None]:
        raise click.ClickException(f"evaluating needs {' and '.join(missing)}: {how_to_install('evaluate')}")
    given = click.get_current_context().get_parameter_source("at") is not ParameterSource.DEFAULT
    if split == "last-out" and given:
        raise click.UsageError(
            "--at needs --split time: with last-out, the last interaction of each user is the target, whenever it was"
        )
    from importlib import metadata

    from rich.console import Console

    from model.evaluation import compare, report
    from model.version.registry import ModelVersion, Registry
    from stream.torch_threads import one_thread

    one_thread()
    chosen: dict[str, ModelVersion] = {}
    for version in map(Registry(registry).resolve, references):
        # A version that is given twice is evaluated once; a SHA-256 that one of the two says must hold.
        if version.sha256 is not None or version.reference not in chosen:
            chosen[version.reference] = version
    versions = list(chosen.values())
    opened = reading.open(log)
    with progress_bar("evaluate") as progress:
        found = compare.evaluate(
            opened.interactions,
            versions,
            compare.EvaluationOptions(split=split, at=at, users=users, seed=seed),
            log_name=log,
            progress=progress,
        )
    arguments = {
        name: str(value) if isinstance(value, Path) else value
        for name, value in click.get_current_context().params.items()
    }
    libraries = {name: metadata.version(name) for name in ("rec2pm", "torch", "numpy", "polars", "scipy", "matplotlib")}
    written = report.write(found, out, arguments=arguments, versions=libraries)
    for line in report.warnings(found):
        say(f"warning: {line}", err=True)
    Console(width=None if sys.stdout.isatty() else 140).print(report.table(found))
    say(f"{found.asked.targets} targets, sha256 {found.asked.sha256[:16]}; report: {written}")
