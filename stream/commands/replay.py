"""`rec2pm replay`."""

import shlex
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from stream.commands.kafka_connection import current_settings, kafka_options, reports_kafka_errors
from stream.commands.log_options import LogOptions, reading_options
from stream.commands.output import progress_bar, say
from stream.commands.registry_option import registry_option

if TYPE_CHECKING:
    from stream.replay.counted import Chosen
    from stream.replay.run import Contender


def _cadence(_: click.Context, __: click.Parameter, text: str) -> object:
    from stream.settings import cadence

    try:
        return cadence(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


def _moment(_: click.Context, __: click.Parameter, text: str | None) -> float | int | None:
    """A share of the log, from 0 to 1, or a time as epoch ms."""
    if text is None:
        return None
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if 0 <= share <= 1:
        return share
    from model.times import TimeRule

    try:
        ms = TimeRule().milliseconds(text)
    except ValueError as error:
        raise click.BadParameter(f"{text!r} {error}, or a share of the log from 0 to 1") from error
    if ms is None:
        raise click.BadParameter(f"{text!r} is not a plausible time")
    return ms


def _intervals(_: click.Context, __: click.Parameter, texts: tuple[str, ...]) -> tuple[str, ...]:
    if texts:
        from stream.replay.retrained import interval_ms

        for text in texts:
            try:
                interval_ms(text)
            except ValueError as error:
                raise click.BadParameter(str(error)) from error
    return texts


@click.command(short_help="Run an event log through models as a worker would, and measure.")
@click.argument("log", required=False)
@click.option("--from-kafka", "topic", metavar="TOPIC", help="In place of LOG: all interactions of this topic.")
@click.option(
    "--as-served",
    is_flag=True,
    help="With --from-kafka, or a log that `interactions export` wrote: the versions that served REC2PM_APP, each where it did.",
)
@reading_options
@click.option(
    "--model",
    "references",
    multiple=True,
    help="NAME, NAME@VERSION or NAME@VERSION#SHA256; may be repeated: the others are compared with the first.",
)
@registry_option
@click.option(
    "--out",
    default=Path("var/replay"),
    show_default=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="The folder for the report and the tables.",
)
@click.option(
    "--recommend",
    "cadence",
    envvar="REC2PM_RECOMMEND",
    default="interaction",
    show_default=True,
    show_envvar=True,
    metavar="WHEN",
    callback=_cadence,
    help="When a user gets a list: at each interaction, at each fold, or at each N-th interaction.",
)
@click.option(
    "--exclude",
    envvar="REC2PM_EXCLUDE",
    type=click.Choice(["none", "working", "kept"]),
    default="kept",
    show_default=True,
    show_envvar=True,
    help="Which of a user's own items no list has.",
)
@click.option(
    "--top-k",
    envvar="REC2PM_TOP_K",
    default=10,
    show_default=True,
    show_envvar=True,
    type=click.IntRange(1, 1000),
    help="Items of a list that is written down. The metrics look at 100.",
)
@click.option(
    "--keep-segments",
    envvar="REC2PM_KEEP_SEGMENTS",
    default=5,
    show_default=True,
    show_envvar=True,
    type=click.IntRange(min=0),
    help="Folded segments of a user that are kept.",
)
@click.option(
    "--from",
    "begin",
    metavar="TIME|SHARE",
    callback=_moment,
    help="Count interactions from this time on, or after this share of the log. Earlier ones are remembered. [default: all]",
)
@click.option(
    "--to",
    "end",
    metavar="TIME|SHARE",
    callback=_moment,
    help="End before this time, or after this share. [default: all]",
)
@click.option(
    "--users",
    default=1.0,
    show_default=True,
    type=click.FloatRange(0, 1, min_open=True),
    help="The share of the users that is replayed, drawn by the seed.",
)
@click.option("--seed", default=0, show_default=True, type=click.IntRange(min=0), help="Seed of all that is drawn.")
@click.option(
    "--protocol",
    type=click.Choice(["timeline", "last-out"]),
    default="timeline",
    show_default=True,
    help="What counts: every interaction, or only the last one of each user, as many papers have it.",
)
@click.option(
    "--train-every",
    "intervals",
    multiple=True,
    metavar="INTERVAL",
    callback=_intervals,
    help="Train on the way, on the past alone: a first version at --from, then one after each interval: 12h, 7d, 2w.",
)
@click.option("--recipe", help="With --train-every: the name of a recipe, or the path of your own, ending in .toml.")
@click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE", help="With --train-every: set a field of the recipe."
)
@click.option("--warm-start", is_flag=True, help="With --train-every: each version starts from the one before it.")
@click.option(
    "--partitions",
    type=click.IntRange(1, 10_000),
    help="Parts that the users are divided into, as a topic is. A log from Kafka has its own. [default: 16, or one for "
    "500,000 interactions]",
)
@click.option("--jobs", type=click.IntRange(min=1), help="Processes. [default: the cores that this process may use]")
@click.option("--ray", metavar="ADDRESS", help="Run on this Ray cluster instead; `auto` finds the one of this machine.")
@click.option("--discard", is_flag=True, help="Discard what DIR has of another replay that was not finished.")
@reports_kafka_errors
def replay(
    log: str | None,
    topic: str | None,
    as_served: bool,
    reading: LogOptions,
    references: tuple[str, ...],
    registry: str,
    out: Path,
    cadence: "Literal['interaction', 'fold'] | int",
    exclude: Literal["none", "working", "kept"],
    top_k: int,
    keep_segments: int,
    begin: float | int | None,
    end: float | int | None,
    users: float,
    seed: int,
    protocol: Literal["timeline", "last-out"],
    intervals: tuple[str, ...],
    recipe: str | None,
    settings: tuple[str, ...],
    warm_start: bool,
    partitions: int | None,
    jobs: int | None,
    ray: str | None,
    discard: bool,
) -> None:
    """Run an event log through models exactly as a worker would, and measure every list by what came next.

    LOG is Parquet, CSV, other separated text or JSON lines: a file, a folder or a glob. Every interaction is predicted
    before it is remembered. The command writes a report, each list, and each user's state. A run that was interrupted
    goes on when the same command is given again.
    """
    import shutil

    from model.errors import how_to_install
    from stream.cpu_cores import usable_cores
    from stream.replay import counted, pool, run
    from stream.replay.ordered import usual_partitions

    if ray is not None:
        if find_spec("ray") is None:
            raise click.ClickException(f"--ray needs ray: {how_to_install('ray')}")
        from stream.replay.on_ray import run_on_ray

    if missing := [name for name in ("matplotlib", "scipy") if find_spec(name) is None]:
        raise click.ClickException(f"a replay's report needs {' and '.join(missing)}: {how_to_install('evaluate')}")
    from model.evaluation.replay import report

    if discard:
        shutil.rmtree(out / "work", ignore_errors=True)
    if (log is None) == (topic is None):
        raise click.UsageError("give a LOG, or --from-kafka TOPIC")
    if log is None:
        log = _exported(topic or "", out)
    opened = reading.open(log)
    chosen = counted.chosen(log, opened, users=users, seed=seed, begin=begin, end=end)
    contenders = [_served(chosen, registry)] if as_served else []
    contenders += run.contenders(registry, references)
    if intervals:
        contenders += _retrained(chosen, intervals, recipe, settings, out, warm=warm_start)
    elif recipe or settings or warm_start:
        raise click.UsageError("--recipe, --set and --warm-start need --train-every")
    if not contenders:
        raise click.UsageError("nothing to replay with: give a --model, --as-served or --train-every")
    contenders.append(run.without_memory(contenders[0]))
    options = run.Options(
        cadence=cadence,
        exclude=exclude,
        top_k=top_k,
        keep_segments=keep_segments,
        keep_formats=current_settings().keep_formats if as_served else 1,
        partitions=partitions or usual_partitions(chosen.rows),
    )
    count = jobs or usable_cores().count
    began = time.monotonic()
    with progress_bar("replay") as bar:
        found = run.replay(
            chosen.log,
            contenders,
            options,
            out,
            identity=chosen.identity,
            begin_ms=chosen.begin_ms,
            origin=chosen.origin,
            heard=lambda _, done, of: bar(done, of),
            run=lambda tasks, heard: run_on_ray(tasks, ray, heard) if ray else pool.run_here(tasks, count, heard),
        )
    took_s = time.monotonic() - began
    say(
        f"replayed {found.rows} interactions through {len(contenders)} models in {took_s:.1f} s, "
        f"{found.rows * len(contenders) / took_s:.0f} a second",
        err=True,
    )
    with progress_bar("baselines") as bar:
        run.write_baselines(out, options, contenders[0], bar)
    findings = run.audited(opened, contenders[:-1], chosen.begin_ms, time.time_ns() // 1_000_000)
    for finding in findings:
        if finding.verdict == "FAIL":
            say(f"audit: FAIL {finding.name}: {finding.figure}. {finding.words}", err=True)
    head = {
        "log": topic or log,
        **run.head(out, contenders, options, chosen.identity, chosen.begin_ms),
        "seed": seed,
        "command": shlex.join(["rec2pm", *sys.argv[1:]]),
        "seconds": round(took_s, 1),
    }
    written = report.write(
        out, models=[each.name for each in contenders], protocol=protocol, audit=findings, head=head, seed=seed
    )
    run.close(out)
    say(str(written))


def _retrained(
    chosen: "Chosen",
    intervals: tuple[str, ...],
    recipe: str | None,
    settings: tuple[str, ...],
    out: Path,
    *,
    warm: bool,
) -> "list[Contender]":
    """A line of the report for each interval: models that are trained on the way."""
    if chosen.begin_ms is None:
        raise click.UsageError(
            "--train-every needs --from: when the first version is trained, as a time or a share of the log"
        )
    from model.training import recipe as recipes
    from model.training.progress import on_stderr
    from stream.cpu_cores import usable_cores
    from stream.replay import run
    from stream.replay.retrained import retrained
    from stream.torch_threads import use_threads

    use_threads(usable_cores().count)
    resolved = recipes.changed(recipes.load(recipe or recipes.DEFAULT), settings)
    return [
        retrained(
            chosen.log,
            every,
            chosen.begin_ms,
            resolved,
            out / "work" / "trained" / run.folder_of([chosen.identity, chosen.begin_ms, repr(resolved), warm]),
            warm=warm,
            clock=time.monotonic,
            progress=on_stderr,
        )
        for every in intervals
    ]


def _exported(topic: str, out: Path) -> str:
    """The folder with the interactions of a topic."""
    from stream.interactions.export import export
    from stream.interactions.window import Window
    from stream.kafka.rights import of_interactions_export

    settings, folder = current_settings(), out / "work" / "topic"
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        kafka = kafka_options(settings, *of_interactions_export(settings.app, topic))
        with progress_bar("offsets") as bar:
            export(settings, kafka, topic=topic, window=Window(None, None), out=folder, progress=bar)
    return str(folder)


def _served(chosen: "Chosen", registry: str) -> "Contender":
    """What served the application, as its marks say."""
    import polars as pl

    from model.version.registry import Registry
    from stream.kafka.rights import of_models_history_of_user
    from stream.replay.served import as_served

    if "partition" not in chosen.log.collect_schema():
        raise click.UsageError(
            "--as-served needs the partitions and offsets of Kafka: --from-kafka, or what `interactions export` wrote"
        )
    settings = current_settings()
    partitions = chosen.log.select(pl.col("partition").unique().sort()).collect()["partition"].to_list()
    kafka = kafka_options(settings, *of_models_history_of_user(settings.names))
    return as_served(kafka, settings.app, partitions, Registry(registry))
