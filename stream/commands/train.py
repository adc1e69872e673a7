"""`rec2pm train`."""

import time
from typing import Literal

import click

from stream.commands.log_options import LogOptions, log_options
from stream.commands.output import counted, say


def _list_recipes(context: click.Context, _: click.Parameter, asked: bool) -> None:
    if not asked:
        return
    from model.training import recipe as recipes

    for name, description in recipes.descriptions().items():
        say(f"{name:<24} {description}")
    context.exit()


@click.command(short_help="Train a new model version on an event log.")
@log_options
@click.option(
    "--attribute-column",
    metavar="NAME",
    help="The column with an attribute of each item, such as a genre or a brand; for kinds that use it: holomambarec.",
)
@click.option(
    "--out",
    required=True,
    help="The registry to write the new version into: a folder, or a URL such as s3://BUCKET/models.",
)
@click.option("--name", default="rec2pm", show_default=True, help="The name of the model.")
@click.option(
    "--recipe",
    help="The name of a recipe, or the path of your own, ending in .toml. [default: the recipe of --from, else rec2pm-o-sasrec-small]",
)
@click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE", help="Set a field of the recipe; may be repeated."
)
@click.option(
    "--list", is_flag=True, is_eager=True, expose_value=False, callback=_list_recipes, help="List the recipes and exit."
)
@click.option(
    "--from",
    "start_from",
    metavar="NAME[@VERSION[#SHA256]]",
    help="Start from the weights of this version and keep its items (daily retraining).",
)
@click.option(
    "--keep-memory-format",
    is_flag=True,
    help="With --from: keep its memory format, if the new version is measured to read its memories well.",
)
@click.option(
    "--devices",
    default=1,
    show_default=True,
    type=click.IntRange(min=1),
    help="Number of GPUs, or of processes where there is no GPU.",
)
@click.option(
    "--threads",
    type=click.IntRange(min=1),
    help="Threads of each process. [default: the CPU quota, or the cores, divided by --devices]",
)
@click.option(
    "--resume",
    "unfinished",
    flag_value="resume",
    help="Resume an earlier training of this name that was interrupted, if there is one.",
)
@click.option(
    "--discard",
    "unfinished",
    flag_value="discard",
    help="Discard an earlier training of this name that was interrupted.",
)
def train(
    log: str,
    reading: LogOptions,
    attribute_column: str | None,
    out: str,
    name: str,
    recipe: str | None,
    settings: tuple[str, ...],
    start_from: str | None,
    keep_memory_format: bool,
    devices: int,
    threads: int | None,
    unfinished: Literal["resume", "discard"] | None,
) -> None:
    """Train on an event log, and write a new model version into a registry.

    LOG is Parquet, CSV, other separated text or JSON lines: a file, a folder or a glob. Most recipes keep the last
    tenth of the log, by time, for validation: training stops when NDCG@10 on it no longer rises. Ctrl-C leaves a
    checkpoint for --resume. The command prints the new version as NAME@VERSION.
    """
    from importlib import metadata

    from stream.cpu_cores import let_threads_sleep, usable_cores

    let_threads_sleep()
    from model.training import recipe as recipes
    from model.training.progress import on_stderr
    from model.training.train import train as training
    from model.version.registry import Registry
    from stream.torch_threads import use_threads

    if keep_memory_format and start_from is None:
        raise click.UsageError("--keep-memory-format needs --from: the version whose memories are kept")
    cores = usable_cores()
    count = threads or max(1, cores.count // devices)
    use_threads(count)
    say(f"training with {counted(count, 'thread')} ({'--threads' if threads else cores.why})", err=True)
    registry = Registry(out)
    earlier = None if start_from is None else registry.resolve(start_from)
    if recipe is None and earlier is not None:
        chosen = recipes.of_manifest(earlier.manifest().config, earlier.reference)
    else:
        chosen = recipes.load(recipe or recipes.DEFAULT)
    version = training(
        reading.open(log, attribute_column).interactions,
        registry,
        recipes.changed(chosen, settings),
        name=name,
        log_name=log,
        program_version=metadata.version("rec2pm"),
        clock=time.monotonic,
        attribute_column=attribute_column,
        devices=devices,
        start_from=earlier,
        keep_format=keep_memory_format,
        unfinished=unfinished or "refuse",
        progress=on_stderr,
    )
    say(f"wrote {version.uri}", err=True)
    say(f"to serve this very version: REC2PM_MODEL={version.reference}#{version.digest()}", err=True)
    say(version.reference)
