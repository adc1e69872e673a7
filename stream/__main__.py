"""The command `rec2pm`. Data goes to stdout, progress and logs to stderr.

Exit codes: 0 done, 2 wrong usage or configuration, 1 anything else, 130 interrupted; SIGTERM is a clean stop (0).
"""

import heapq
import logging
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import click
import msgspec
from click.core import ParameterSource
from confluent_kafka import KafkaError, KafkaException
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from model.errors import ModelError, RecipeInvalid, TrainerMissing, TrainingInterrupted, TrainingUnfinished
from state.errors import StateError
from state.interaction import MAX_ID_BYTES
from stream.errors import SettingsInvalid, StreamError, TopicsUnusable
from stream.settings import Settings, described

if TYPE_CHECKING:
    from stream.kafka.topics import TopicSpec

EXIT_ERROR: Final = 1
EXIT_USAGE: Final = 2
EXIT_INTERRUPTED: Final = 130

logger = logging.getLogger("rec2pm")


class Explained(click.Group):
    """Groups whose errors are one clear line each, with the exit codes of the convention."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        kwargs["standalone_mode"] = False
        try:
            code = super().main(*args, **kwargs)
        except click.ClickException as error:
            error.show()
            sys.exit(error.exit_code)
        except (click.Abort, KeyboardInterrupt):
            click.echo("interrupted", err=True)
            sys.exit(EXIT_INTERRUPTED)
        except TrainingInterrupted as error:
            _complain(error)
            sys.exit(0 if error.signal == signal.SIGTERM else EXIT_INTERRUPTED)
        except (SettingsInvalid, TopicsUnusable, RecipeInvalid, TrainerMissing, TrainingUnfinished) as error:
            _complain(error)
            sys.exit(EXIT_USAGE)
        except (StreamError, StateError, ModelError) as error:
            _complain(error)
            sys.exit(EXIT_ERROR)
        except KafkaException as error:
            if error.args[0].code() == KafkaError._INVALID_ARG:
                click.echo(f"rec2pm: REC2PM_KAFKA_*: {error.args[0].str()}", err=True)
                sys.exit(EXIT_USAGE)
            click.echo(f"rec2pm: Kafka did not do it: {error.args[0].str()} (REC2PM_BOOTSTRAP_SERVERS says where Kafka is)", err=True)
            sys.exit(EXIT_ERROR)
        except BrokenPipeError:
            # The reader of our output went away, as `head` does.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(0)
        sys.exit(code if isinstance(code, int) else 0)


def _complain(error: Exception) -> None:
    for line in str(error).splitlines() or [type(error).__name__]:
        click.echo(f"rec2pm: {line}", err=True)


def settings() -> Settings:
    return Settings.from_environ(os.environ)


def _kafka(chosen: Settings) -> dict[str, Any]:
    """The options of a client that a command makes."""
    return {"bootstrap.servers": chosen.bootstrap_servers, **chosen.kafka}


@contextmanager
def _progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on stderr: called with (done, of)."""
    console = Console(stderr=True)
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bars:
        bar = bars.add_task(what, total=None)
        yield lambda done, of: bars.update(bar, completed=done, total=of)


def _log_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """LOG and the names of its columns."""
    for field in ("timestamp", "item", "user"):
        column = "timestamp" if field == "timestamp" else f"{field}_id"
        command = click.option(f"--{field}-column", default=column, show_default=True, help=f"The column with the {field}.")(command)
    return click.argument("log")(command)


@click.group(cls=Explained, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="rec2pm")
@click.option("-v", "--verbose", is_flag=True, help="Log more.")
def main(verbose: bool) -> None:
    """Streaming stateful recommender worker for Kafka (Rec2PM). Settings are environment variables: see `rec2pm worker --help`."""
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.DEBUG if verbose else logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s %(message)s",
    )
    if not verbose:
        logging.getLogger("rdkafka").setLevel(logging.WARNING)


def _settings_help() -> str:
    lines = ["\b", "Settings (environment):"]
    for name, default, meaning in described():
        lines += [f"  {name}{f' [{default}]' if default else ''}", f"      {meaning}"]
    return "\n".join(lines)


@main.command(epilog=_settings_help())
def worker() -> None:
    """Run one worker process: interactions in, recommendations out.

    As many as there are cores and partitions. SIGTERM and SIGINT finish the step, commit and leave the group.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # until there is a step to finish; importing torch takes a while
    from stream.compose import run_worker

    run_worker(settings())


@main.command()
@click.option("--log", help="Your event log instead of the synthetic one: Parquet, CSV or JSON lines.")
@click.option(
    "--folder", default=Path("var/demo"), show_default=True, type=click.Path(file_okay=False, path_type=Path), help="For what it leaves."
)
def demo(log: str | None, folder: Path) -> None:
    """Broker, topics, model, traffic, workers, and what came out: the whole loop in one terminal, in a few minutes.

    Uses the Kafka of REC2PM_BOOTSTRAP_SERVERS or KAFKA_HOME when one is set, else an embedded broker.
    """
    from stream.commands.broker import BrokerNotFound
    from stream.commands.demo import run_demo
    from stream.compose import one_thread

    logging.getLogger().setLevel(logging.WARNING)
    one_thread()
    try:
        run_demo(log, folder, os.environ, Console(width=None if sys.stdout.isatty() else 120))
    except BrokerNotFound as error:
        raise click.ClickException(str(error)) from error


@main.command()
@click.option("--listen", default="127.0.0.1:6066", show_default=True, help="HOST:PORT for HTTP.")
@click.option("--name", default="view", show_default=True, help="Of this process: its own among the application's views.")
def view(listen: str, name: str) -> None:
    """Serve each user's latest list over HTTP, and a page that shows one as it changes."""
    from stream.commands.view import run_view

    run_view(settings(), listen=listen, name=name)


@main.group()
def topics() -> None:
    """The application's topics."""


@topics.command("create")
@click.option("--partitions", default=4, show_default=True, type=click.IntRange(1, 10_000), help="Of interactions and what goes with them.")
@click.option("--replication", default=1, show_default=True, type=click.IntRange(1, 100), help="Replication factor; 3 in production.")
@click.option("--dry-run", is_flag=True, help="Say what would be made, and make nothing.")
def topics_create(partitions: int, replication: int, dry_run: bool) -> None:
    """Create the topics that do not exist yet."""
    from stream.compose import admin_client
    from stream.kafka import topics as plans

    chosen = settings()
    planned = plans.plan(chosen.app, chosen.interactions_topic, chosen.recommendations_topic, partitions, replication)
    if dry_run:
        for spec in planned:
            click.echo(f"would create {_told(spec)}")
        return
    outcomes = plans.create(admin_client(chosen), planned)
    for outcome in outcomes:
        click.echo(f"{outcome.result:<8} {_told(outcome.topic)}{f': {outcome.reason}' if outcome.reason else ''}")
    if any(outcome.result == "refused" for outcome in outcomes):
        sys.exit(EXIT_ERROR)


def _told(topic: "TopicSpec") -> str:
    settings = ", ".join(f"{name}={value}" for name, value in topic.config.items())
    return f"{topic.name} ({topic.purpose}): {_counted(topic.partitions, 'partition')}, {settings}"


@topics.command("check")
def topics_check() -> None:
    """Check that the topics exist, with the right partitions and cleanup policies."""
    from stream.compose import admin_client
    from stream.kafka import topics as plans

    chosen = settings()
    problems = plans.check(admin_client(chosen), chosen.app, chosen.interactions_topic, chosen.recommendations_topic)
    for problem in problems:
        click.echo(f"{'FAIL' if problem.severity == 'error' else 'WARN'} {problem.line}")
    if any(problem.severity == "error" for problem in problems):
        sys.exit(EXIT_ERROR)
    click.echo("PASS every topic is there and fits the others")


@main.command()
@_log_options
@click.option("--rate", type=click.FloatRange(min=0, min_open=True), help="Interactions per second (default: as fast as Kafka takes them).")
@click.option("--limit", type=click.IntRange(min=1), help="Only the first so many.")
def produce(log: str, user_column: str, item_column: str, timestamp_column: str, rate: float | None, limit: int | None) -> None:
    """Send an event log into the interactions topic, in time order.

    LOG is Parquet, CSV or JSON lines: a file, a folder or a glob.
    """
    from model.log import read_log
    from stream.commands import produce as producing

    chosen = settings()
    with _progress("produce") as progress:
        sent = producing.produce(
            read_log(log, user_column=user_column, item_column=item_column, timestamp_column=timestamp_column),
            kafka=_kafka(chosen),
            topic=chosen.interactions_topic,
            limit=limit,
            rate=rate,
            clock=time.monotonic,
            sleep=time.sleep,
            progress=progress,
        )
    click.echo(f"produced {sent} interactions to {chosen.interactions_topic}", err=True)


def _list_recipes(context: click.Context, _: click.Parameter, asked: bool) -> None:
    if not asked:
        return
    from model.training import recipe as recipes

    for name, description in recipes.descriptions().items():
        click.echo(f"{name:<24} {description}")
    context.exit()


@main.command()
@_log_options
@click.option(
    "--attribute-column",
    metavar="NAME",
    help="A column that says something of items, a genre or a brand; for kinds that read it: holomambarec.",
)
@click.option("--out", required=True, type=click.Path(file_okay=False, path_type=Path), help="The registry that gets the new version.")
@click.option("--name", default="rec2pm", show_default=True, help="The model's name.")
@click.option(
    "--recipe", help="A recipe's name, or a path to one of your own ending in .toml. [default: that of --from, else rec2pm-o-sasrec-small]"
)
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Set a field of the recipe; any number of times.")
@click.option("--list", is_flag=True, is_eager=True, expose_value=False, callback=_list_recipes, help="Show the recipes and end.")
@click.option(
    "--from", "start_from", metavar="NAME[@VERSION]", help="Start from a version's weights and keep its items (daily retraining)."
)
@click.option("--devices", default=1, show_default=True, type=click.IntRange(min=1), help="GPUs where there are some, else processes.")
@click.option("--resume", "unfinished", flag_value="resume", help="Go on where an earlier training of this name stopped, if one did.")
@click.option("--discard", "unfinished", flag_value="discard", help="Forget an earlier training of this name that stopped.")
def train(
    log: str,
    user_column: str,
    item_column: str,
    timestamp_column: str,
    attribute_column: str | None,
    out: Path,
    name: str,
    recipe: str | None,
    settings: tuple[str, ...],
    start_from: str | None,
    devices: int,
    unfinished: Literal["resume", "discard"] | None,
) -> None:
    """Train on an event log and write a new model version into a registry.

    LOG is Parquet, CSV or JSON lines: a file, a folder or a glob. By most recipes the last tenth of it, by time, is kept for validation:
    training stops when NDCG@10 on it no longer rises. Ctrl-C leaves a checkpoint for --resume. Prints the new version's NAME@VERSION.
    """
    from model.log import read_log
    from model.training import recipe as recipes
    from model.training.progress import progress_bar
    from model.training.train import train as training
    from model.version.registry import Registry
    from stream.compose import one_thread

    one_thread()
    registry = Registry(out)
    earlier = None if start_from is None else registry.resolve(start_from)
    if recipe is None and earlier is not None:
        chosen = recipes.of_manifest(earlier.manifest().config, earlier.reference)
    else:
        chosen = recipes.load(recipe or recipes.DEFAULT)
    version = training(
        read_log(
            log,
            user_column=user_column,
            item_column=item_column,
            timestamp_column=timestamp_column,
            attribute_column=attribute_column,
        ),
        registry,
        recipes.changed(chosen, settings),
        name=name,
        log_name=log,
        program_version=metadata.version("rec2pm"),
        clock=time.monotonic,
        attribute_column=attribute_column,
        devices=devices,
        start_from=earlier,
        unfinished=unfinished or "refuse",
        progress=progress_bar,
    )
    told = version.manifest()
    if (metrics := told.metrics) is not None:
        click.echo(
            f"wrote {version.folder}: on {metrics.targets} later interactions HR@10 {metrics.hr_at_10:.4f}, "
            f"NDCG@10 {metrics.ndcg_at_10:.4f} (the popularity list: HR@10 {metrics.popularity_hr_at_10:.4f})",
            err=True,
        )
    if (trained := told.training) is not None:
        click.echo(
            f"{trained.samples} windows in {trained.wall_s:.0f} s, {trained.samples / max(trained.wall_s, 0.1):.0f}/s with validation; "
            f"the best of {trained.epochs} epochs was number {trained.best_epoch}",
            err=True,
        )
    click.echo(version.reference)


@main.command()
@_log_options
@click.option("--model", "references", required=True, multiple=True, help="NAME or NAME@VERSION; several are compared with the first.")
@click.option(
    "--registry",
    envvar="REC2PM_MODELS",
    default=Path("var/models"),
    show_default=True,
    show_envvar=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Where the models are.",
)
@click.option(
    "--out", default=Path("var/evaluation"), show_default=True, type=click.Path(file_okay=False, path_type=Path), help="For the report."
)
@click.option(
    "--split",
    type=click.Choice(["last-out", "time"]),
    default="last-out",
    show_default=True,
    help="Targets: everybody's last interaction, or their first one after a point in time.",
)
@click.option(
    "--at",
    default=0.9,
    show_default=True,
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="That point, as a share of the log; for --split time alone.",
)
@click.option("--users", type=click.IntRange(min=1), help="Ask about so many users, drawn by the seed (default: all).")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(min=0))
def evaluate(
    log: str,
    user_column: str,
    item_column: str,
    timestamp_column: str,
    references: tuple[str, ...],
    registry: Path,
    out: Path,
    split: Literal["last-out", "time"],
    at: float,
    users: int | None,
    seed: int,
) -> None:
    """Compare model versions on an event log: accuracy side by side, and what their memories are worth.

    LOG is Parquet, CSV or JSON lines: a file, a folder or a glob. Writes report.md with pictures, and metrics.json.
    """
    if missing := [name for name in ("matplotlib", "scipy") if find_spec(name) is None]:
        raise click.ClickException(f"evaluating needs {' and '.join(missing)}: pip install 'rec2pm[evaluate]'")
    given = click.get_current_context().get_parameter_source("at") is not ParameterSource.DEFAULT
    if split == "last-out" and given:
        raise click.UsageError("--at is for --split time: with last-out everybody's last interaction is the target, whenever it was")
    from model.evaluation import compare, report
    from model.log import read_log
    from model.version.registry import Registry
    from stream.compose import one_thread

    one_thread()
    versions = list({version.reference: version for version in map(Registry(registry).resolve, references)}.values())
    with _progress("evaluate") as progress:
        found = compare.evaluate(
            read_log(log, user_column=user_column, item_column=item_column, timestamp_column=timestamp_column),
            versions,
            compare.EvaluationOptions(split=split, at=at, users=users, seed=seed),
            log_name=log,
            progress=progress,
        )
    arguments = {name: str(value) if isinstance(value, Path) else value for name, value in click.get_current_context().params.items()}
    libraries = {name: metadata.version(name) for name in ("rec2pm", "torch", "numpy", "polars", "scipy", "matplotlib")}
    written = report.write(found, out, arguments=arguments, versions=libraries)
    for line in report.warnings(found):
        click.echo(f"mind: {line}", err=True)
    Console(width=None if sys.stdout.isatty() else 140).print(report.table(found))
    click.echo(f"{found.asked.targets} targets, sha256 {found.asked.sha256[:16]}; the report is {written}")


@main.group()
def state() -> None:
    """What is remembered about users."""


@state.command("export")
@click.option("--out", required=True, type=click.Path(dir_okay=False, path_type=Path), help="The Parquet file to write.")
def state_export(out: Path) -> None:
    """Write every user's state to a Parquet file, read from the changelog: no worker needs to stop."""
    from stream.commands.export_state import export

    chosen = settings()
    with _progress("partitions") as progress:
        users = export(_kafka(chosen), f"{chosen.app}.changelog", out, progress)
    click.echo(f"exported {users} users to {out}", err=True)


@main.group()
def user() -> None:
    """One user."""


def _known_length(_: click.Context, __: click.Parameter, user_id: str) -> str:
    if not 0 < len(user_id.encode()) <= MAX_ID_BYTES:
        raise click.BadParameter(f"a user id has 1 to {MAX_ID_BYTES} bytes")
    return user_id


@user.command("show")
@click.argument("user_id", callback=_known_length)
@click.option("--json", "as_json", is_flag=True, help="For a program.")
def user_show(user_id: str, as_json: bool) -> None:
    """Show what is remembered about one user, read from the changelog."""
    from stream.commands.export_state import show

    chosen = settings()
    found = show(_kafka(chosen), f"{chosen.app}.changelog", user_id)
    if not found:
        click.echo(f"nothing is remembered about user {user_id!r}", err=True)
        sys.exit(EXIT_ERROR)
    for shown in found:
        if as_json:
            click.echo(msgspec.json.encode({**msgspec.structs.asdict(shown.state), "kept_segments": shown.kept_segments}).decode())
            continue
        row = shown.state
        click.echo(f"user {row.user_id} (partition {row.partition})")
        click.echo(f"  interactions remembered  {row.taken}, the newest at {_moment(row.as_of)}")
        memory = f"{len(row.memory)} floats of {row.memory_format}" if row.folds else "none yet"
        click.echo(f"  preference memory        {row.folds} segments folded, {memory}")
        click.echo(f"  working memory           {len(row.working_items)} items: {' '.join(row.working_items)}")
        for age, segment in enumerate(reversed(shown.kept_segments)):
            click.echo(f"  folded segment {row.folds - 1 - age:<9} {' '.join(segment)}")


@user.command("forget")
@click.argument("user_id", callback=_known_length)
@click.option("--execute/--dry-run", default=False, help="Forget them, or say what is remembered.  [default: --dry-run]")
@click.option("--wait", default=60.0, show_default=True, type=click.FloatRange(min=0), help="Seconds for a worker to do it.")
def user_forget(user_id: str, execute: bool, wait: float) -> None:
    """Forget one user: their memories and their list.

    Without --execute it says what is remembered. With it, a null value is sent for the user, and the command waits until a worker has
    forgotten them; exit code 1 when none has in time: then the next one does.

    Kafka compacts the changelog and the lists within about a day, and drops the last trace, the user id, within days (max.compaction.lag.ms,
    delete.retention.ms), as other records come; workers' local stores, as RocksDB compacts. The interactions topic and dead letters keep
    what they hold until their own retention.
    """
    from stream.commands import forget_user
    from stream.kafka.read_topic import partitions
    from stream.kafka.topics import changelog_topic

    chosen = settings()
    kafka, changelog, user = _kafka(chosen), changelog_topic(chosen.app), user_id.encode()
    before = forget_user.look(kafka, changelog, user, partitions(kafka, changelog))
    out = forget_user.listed(kafka, chosen.recommendations_topic, user)
    numbers = forget_user.addressed(kafka, chosen.interactions_topic, user, before.known)
    for each in before.known:
        click.echo(
            f"{changelog}[{each.partition}]: {_counted(each.taken, 'interaction')} remembered, {_counted(each.folds, 'segment')} folded, "
            f"{each.kept_segments} kept; in {_counted(each.records, 'record')}"
        )
    if not before.known:
        click.echo(f"nothing is remembered about user {user_id!r}")
    if out is not None:
        click.echo(f"{chosen.recommendations_topic}[{out}]: a list is out")
    if not execute:
        places = ", ".join(f"{chosen.interactions_topic}[{number}]" for number in numbers)
        click.echo(f"would send a null value to {places}\nnothing was sent: --execute does it")
        return
    offsets = forget_user.send(kafka, chosen.interactions_topic, user, numbers)
    click.echo(f"sent a null value to {', '.join(f'{chosen.interactions_topic}[{number}]@{at}' for number, at in sorted(offsets.items()))}")
    if not forget_user.taken(kafka, chosen.app, chosen.interactions_topic, offsets, wait_s=wait, clock=time.monotonic, sleep=time.sleep):
        click.echo(f"not forgotten yet: no worker of {chosen.app} has taken it within {wait:g} s; the next one to run does", err=True)
        sys.exit(EXIT_ERROR)
    after = forget_user.look(kafka, changelog, user, numbers)
    if any(each.first_offset < before.reached[each.partition] for each in after.known):
        click.echo(f"not forgotten: {changelog} still has records from before, though a worker has taken the null value", err=True)
        sys.exit(EXIT_ERROR)
    click.echo("forgotten" if not after.known else "forgotten, and active again since: what came after the null value is remembered")


@main.group("dead-letters")
def dead_letters() -> None:
    """Records that were refused: why, from where, and sending them in again."""


@dead_letters.command("list")
@click.option("--limit", default=50, show_default=True, type=click.IntRange(min=1), help="Only the newest so many.")
@click.option("--json", "as_json", is_flag=True, help="A line of JSON for each, for a program.")
def dead_letters_list(limit: int, as_json: bool) -> None:
    """List dead letters, the newest last, and how many there are of each reason.

    LETTER is a letter's place, by which `show` and `replay` know it.
    """
    from stream.commands import read_letters as letters
    from stream.commands import replay_letters
    from stream.kafka.read_topic import partitions
    from stream.kafka.topics import dead_letter_topic

    chosen = settings()
    kafka, topic = _kafka(chosen), dead_letter_topic(chosen.app)
    numbers = partitions(kafka, topic)
    known = replay_letters.remembered(kafka, chosen.app, topic, numbers, "read_uncommitted")
    reasons = Counter[str]()
    replayed = 0
    newest: list[tuple[int, letters.Place, letters.Letter]] = []
    for each in letters.letters(kafka, topic, numbers):
        reasons[letters.kind(each.refusal)] += 1
        replayed += letters.is_replayed(each, known)
        (heapq.heappush if len(newest) < limit else heapq.heappushpop)(newest, (each.time_ms, each.place, each))
    shown = [each for _, _, each in sorted(newest, key=lambda entry: entry[:2])]
    if as_json:
        for each in shown:
            click.echo(msgspec.json.encode(letters.as_json(each, known)))
        return
    if not reasons:
        click.echo(f"no dead letters in {topic}")
        return
    for line in letters.table(shown, known):
        click.echo(line)
    count = reasons.total()
    click.echo(
        f"\n{_counted(count, 'dead letter')} in {topic}, {replayed} replayed{f'; the newest {limit} are shown' if count > limit else ''}:"
    )
    for line in letters.histogram(reasons):
        click.echo(line)


def _place(text: str) -> tuple[int, int]:
    partition, colon, offset = text.partition(":")
    if not (colon and partition.isdecimal() and offset.isdecimal() and len(text) < 30):
        raise click.BadParameter(f"{text!r} is not PARTITION:OFFSET, as `rec2pm dead-letters list` shows them: 3:1182")
    return int(partition), int(offset)


@dead_letters.command("show")
@click.argument("letter", metavar="PARTITION:OFFSET", callback=lambda _, __, text: _place(text))
@click.option("--json", "form", flag_value="json", help="For a program; bytes are base64.")
@click.option("--raw", "form", flag_value="raw", help="The value's bytes and nothing else.")
def dead_letters_show(letter: tuple[int, int], form: Literal["json", "raw"] | None) -> None:
    """Show one dead letter: why it was refused, its headers, key and value."""
    from stream.commands import read_letters as letters
    from stream.commands import replay_letters
    from stream.kafka.topics import dead_letter_topic

    chosen = settings()
    kafka, topic = _kafka(chosen), dead_letter_topic(chosen.app)
    message = letters.found(kafka, topic, letter)
    if message is None:
        raise click.ClickException(
            f"there is no dead letter {letters.written(letter)} in {topic}, or not any more: `rec2pm dead-letters list`"
        )
    if form == "raw":
        click.echo(message.value() or b"", nl=False)
        return
    known = replay_letters.remembered(kafka, chosen.app, topic, [letter[0]], "read_uncommitted")
    if form == "json":
        click.echo(msgspec.json.encode(letters.details_as_json(message, known)))
        return
    for line in letters.details(message, known):
        click.echo(line)


@dead_letters.command("replay")
@click.argument("places", metavar="[PARTITION:OFFSET]...", nargs=-1, callback=lambda _, __, texts: tuple(map(_place, texts)))
@click.option("--reason", metavar="TEXT", help="Only letters with TEXT in their reason.")
@click.option("--max-attempts", default=3, show_default=True, type=click.IntRange(min=1), help="Pass over what was refused so often.")
@click.option("--limit", type=click.IntRange(min=1), help="Only the oldest so many.")
@click.option("--again", is_flag=True, help="Also what was replayed already; with places or --reason.")
@click.option("--execute/--dry-run", default=False, help="Send them, or say what would be sent.  [default: --dry-run]")
def dead_letters_replay(
    places: tuple[tuple[int, int], ...], reason: str | None, max_attempts: int, limit: int | None, again: bool, execute: bool
) -> None:
    """Send dead letters into the topic they came from once more: those at the given places, else all.

    Without --execute it says what it would send. With it, each letter is sent once, however often this is run or interrupted; only --again
    sends it once more. Key, value, headers and timestamp are the original ones. What is refused again is another dead letter, with one
    attempt more. Have a worker running: where the topic's retention is shorter than a letter's age, the record soon goes again.
    """
    from stream.commands import replay_letters
    from stream.commands.read_letters import histogram, written
    from stream.kafka.topics import dead_letter_topic

    if again and not places and reason is None:
        raise click.UsageError(
            "--again is for letters named by place or --reason: without them, all that were ever replayed would be sent once more"
        )
    chosen = settings()
    kafka, topic = _kafka(chosen), dead_letter_topic(chosen.app)
    wanted = replay_letters.Wanted(frozenset(places) or None, reason, max_attempts, limit, again)
    producer = replay_letters.begin(kafka, chosen.app) if execute else None
    now_ms = time.time_ns() // 1_000_000
    surveyed = replay_letters.survey(kafka, chosen.app, topic, now_ms, "read_uncommitted" if producer is None else "read_committed")
    if missing := sorted(set(places) - {each.place for each in surveyed.letters}):
        raise click.ClickException(
            f"there is no dead letter {', '.join(map(written, missing))} in {topic}, or not any more; nothing was sent"
        )
    plan = replay_letters.choose(surveyed, wanted)
    count = len(plan.send)
    if not surveyed.letters:
        click.echo(f"no dead letters in {topic}")
        return
    done = count
    whither = f", to {', '.join(sorted(plan.topics()))}"
    if not count:
        click.echo("nothing to replay")
    elif producer is None:
        click.echo(f"would send {_counted(count, 'dead letter')} in again{whither}")
    else:
        with _progress("replay") as progress:
            done = replay_letters.send(kafka, chosen.app, topic, producer, surveyed, plan, progress=progress)
        click.echo(f"sent {_counted(done, 'dead letter')} in again{whither}")
    for line in histogram(plan.reasons()):
        click.echo(line)
    if done < count:
        click.echo(f"{count - done} were deleted before they could be sent")
    if plan.passed_over:
        click.echo("passed over:")
    for line in histogram({why.value: number for why, number in plan.passed_over.items()}):
        click.echo(line)
    if producer is None and count:
        click.echo("nothing was sent: --execute does it")


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _moment(epoch_ms: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(epoch_ms / 1000))


if __name__ == "__main__":
    main()
