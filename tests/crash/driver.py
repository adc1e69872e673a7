"""One run: workers process a steady load, faults come one after the other, and in the end the oracle judges.

Nothing here helps a worker. Failed processes are started again, as systemd would; a worker must do the rest alone.
"""

import logging
import os
import random
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from model.version.registry import Registry
from state.errors import StateError
from stream.errors import StreamError
from stream.kafka import topics
from tests.crash import disk, kafka, ledgers, source, stores
from tests.crash.faults import LONG, Fault
from tests.crash.feeder import Feeder
from tests.crash.oracle import Verdict, judge
from tests.crash.ports import free_ports
from tests.crash.process import Exit, Supervisor, Worker
from tests.crash.progress import Progress, Usage, Used
from tests.crash.proxy import Proxy
from tests.crash.reading import ends, observe, places_of, records
from tests.crash.replay import Rules
from tests.crash.schedule import Schedule
from tests.crash.upstream import Upstream
from tests.crash.versions import LedgerVersion
from tests.crash.world import BYSTANDER, DELETIONS_KEPT_S, TAKING_WITHIN_S, Broken, NotReached, Patience, World
from tests.processes import environ, wait_until

logger = logging.getLogger(__name__)

APP = "crash"
TOPIC, LISTS = f"{APP}.in", f"{APP}.out"
SEGMENT_LENGTH, KEEP_SEGMENTS, TOP_K, RECOMMEND = 8, 2, 5, 5
DISK_MB = 256
RECOVERS_WITHIN_S = 75.0
SILENT_S = 60.0
ENDS_WITHIN_S = 30.0


@dataclass(frozen=True, slots=True)
class Options:
    """What to run. `log`: a file with user_id, item_id, timestamp; None: a synthetic log."""

    seconds: float
    seed: int
    faults: Sequence[Fault]
    folder: Path
    workers: int = 3
    partitions: int = 6
    rate: float = 700.0
    log: Path | None = None
    most_failures: int = 3
    """The run ends early after this number of failures."""
    patience: Patience = field(default_factory=Patience)


@dataclass(frozen=True, slots=True)
class Injection:
    """A fault that was caused, or should have been.

    `seconds`: from its start until the workers had read everything that was in the topic then; None: they had not, or
    there was no fault. `waited_s`: the longest wait of a record that came during the fault.
    """

    fault: str
    began: float
    seconds: float | None
    waited_s: float = 0.0
    reached: bool = True


@dataclass(slots=True)
class Outcome:
    """The result of a run."""

    options: Options
    injections: list[Injection] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    exits: list[Exit] = field(default_factory=list)
    usage: list[Used] = field(default_factory=list)
    restarts: int = 0
    new_producers: int = 0
    upstream: Mapping[str, int] = field(default_factory=dict)
    """How the transactions of the upstream writer ended → how many."""
    deletions: int = 0
    """How often everything that was read of the input was deleted."""
    promotions: int = 0
    verdict: Verdict | None = None
    fed_s: float = 0.0

    @property
    def holds(self) -> bool:
        return not self.failures and self.verdict is not None and self.verdict.holds


def run(options: Options, report: Callable[[str], None] = lambda line: None) -> Outcome:
    """`report` gets a line for each thing that happens."""
    outcome = Outcome(options)
    log = source.log_of(options.log, options.seed)
    versions = ledgers.of(log, options.seed)
    with _world(options, log, versions) as world:
        feeder, upstream = world.feeder, world.upstream
        for worker in world.workers.values():
            worker.start()
        progress = Progress(world.kafka.direct, APP, TOPIC)
        usage = Usage(lambda: {name: worker.pid for name, worker in world.workers.items() if worker.pid is not None})
        try:
            feeder.start()
            upstream.start()
            _all_take(world, "at the start", outcome)
            report(f"{len(world.workers)} workers take records; faults for {options.seconds:.0f} s")
            began = time.time()
            _inject_until(began + options.seconds, world, progress, outcome, report)
            _all_take(world, "at the end", outcome)
            upstream.stop()
            feeder.stop()
            outcome.fed_s = time.time() - began
            _take_the_rest(progress, outcome)
        finally:
            progress.close()
            usage.close()
        outcome.usage, outcome.exits = usage.samples, world.supervisor.exits()
        outcome.restarts, outcome.new_producers = world.supervisor.restarts(), feeder.new_producers
        outcome.upstream, outcome.deletions = dict(upstream.transactions), world.kept.deletions
        _end(world, outcome)
        report("the oracle recomputes everything from the input topic")
        rules = Rules(
            {each.reference: each for each in versions},
            versions[0].reference,
            SEGMENT_LENGTH,
            RECOMMEND,
            TOP_K,
            KEEP_SEGMENTS,
            bad=frozenset(each.reference for each in world.bad),
        )
        try:
            observed = observe(world.kafka.direct, APP, TOPIC, LISTS, world.kept)
            observed.excused, outcome.promotions = world.excused, len(observed.promotions)
            outcome.verdict = judge(observed, rules)
            outcome.failures += _stores_that_differ(world)
        except (StateError, StreamError, TimeoutError) as error:
            outcome.failures.append(f"what is committed cannot be read: {error}")
    if outcome.holds:
        shutil.rmtree(options.folder / "kafka", ignore_errors=True)
    return outcome


def _inject_until(
    end: float, world: World, progress: Progress, outcome: Outcome, report: Callable[[str], None]
) -> None:
    asked = outcome.options.faults
    schedule = Schedule(
        [each for each in asked if each not in LONG], world.chosen, [each for each in asked if each in LONG]
    )
    while (left_s := end - time.time()) > 0 and len(outcome.failures) < outcome.options.most_failures:
        fault = schedule.next(left_s)
        if fault is None:
            time.sleep(left_s)
            return
        injection = _injected(fault, world, progress, outcome)
        outcome.injections.append(injection)
        _look_for_the_silent(world, outcome)
        report(f"{_clock(injection.began)} {fault.name}: {_outcome_of(injection)}; {progress.behind()} records behind")
        world.pause_between(0.2, 1.0)


def _look_for_the_silent(world: World, outcome: Outcome) -> None:
    """Fail for each running worker that reads nothing for too long while there is something to read."""
    # While a fault stops all workers, none of them counts as silent.
    long_ones = [
        each.began + each.seconds
        for each in outcome.injections
        if each.seconds is not None and each.seconds > SILENT_S / 6
    ]
    everybody_since = max(long_ones, default=0.0)
    for worker in world.workers.values():
        silent_s = time.time() - max(worker.silent_since(), everybody_since)
        if silent_s > SILENT_S:
            outcome.failures.append(
                f"{_clock(time.time())} {worker.name} has taken no record for {silent_s:.0f} s; log: {worker.log}"
            )
            worker.dump_stacks()
            time.sleep(0.5)  # for the stacks
            worker.kill()


def _injected(fault: Fault, world: World, progress: Progress, outcome: Outcome) -> Injection:
    started = time.time()
    try:
        began = fault.inject(world)
        ended = time.time()
        wait_until(
            lambda: progress.recovered_at(ended) is not None, RECOVERS_WITHIN_S, "everything that was there is taken"
        )
    except NotReached as reason:
        logger.info("%s not possible: %s", fault.name, reason)
        return Injection(fault.name, started, None, reached=False)
    except (Broken, TimeoutError) as error:
        outcome.failures.append(f"{_clock(started)} {fault.name}: {error}")
        for worker in world.workers.values():
            worker.dump_stacks()
        return Injection(fault.name, started, None)
    recovered = progress.recovered_at(began)
    return Injection(
        fault.name, began, None if recovered is None else recovered - began, progress.longest_wait(began, ended)
    )


def _all_take(world: World, when: str, outcome: Outcome) -> None:
    """Wait until every worker reads records, without help."""
    try:
        wait_until(
            lambda: all(worker.taking() for worker in world.workers.values()),
            TAKING_WITHIN_S,
            "all workers take records",
        )
    except TimeoutError:
        for worker in world.workers.values():
            if not worker.taking():
                outcome.failures.append(
                    f"{when}: {worker.name} takes no records, not within {TAKING_WITHIN_S:.0f} s; log: {worker.log}"
                )
                worker.dump_stacks()


def _take_the_rest(progress: Progress, outcome: Outcome) -> None:
    stopped = time.time()
    try:
        wait_until(
            lambda: progress.recovered_at(stopped) is not None, RECOVERS_WITHIN_S, "everything that was fed is taken"
        )
    except TimeoutError as error:
        outcome.failures.append(f"at the end: {error}")


def _end(world: World, outcome: Outcome) -> None:
    """Stop one worker after the other with SIGTERM: the last ones own everything, and must still stop."""
    for worker in world.workers.values():
        if not worker.running():
            continue
        try:
            code = worker.terminate(ENDS_WITHIN_S)
        except TimeoutError as error:
            outcome.failures.append(f"at the end: {error}")
            continue
        if code != 0:
            outcome.failures.append(f"at the end: SIGTERM ended {worker.name} with {code}, expected 0")


def _stores_that_differ(world: World) -> list[str]:
    """Compare the stores of the workers, which have ended."""
    admin = AdminClient({"bootstrap.servers": world.kafka.direct, "log_level": 2})
    changelog = stores.newest(records(world.kafka.direct, topics.changelog_topic(APP)), world.partitions)
    folders = [worker.files / APP / worker.name for worker in world.workers.values()]
    there = [folder for folder in folders if folder.exists()]
    return list(stores.differing(there, dict(enumerate(changelog)), ends(admin, places_of(admin, TOPIC))))


@contextmanager
def _world(options: Options, log: pl.DataFrame, versions: Sequence[LedgerVersion]) -> Iterator[World]:
    chosen = random.Random(options.seed)
    folder = options.folder
    folder.mkdir(parents=True, exist_ok=True)
    direct, behind, proxied, controller = free_ports(4, random.Random())
    ports = kafka.Ports(direct, behind, proxied, controller)
    with ExitStack() as running:
        broker = running.enter_context(kafka.running(folder / "kafka", ports, os.environ))
        proxy = running.enter_context(Proxy(ports.proxy, ports.behind_proxy))
        _make_topics(broker.direct, options.partitions)
        registry = Registry(folder / "models")
        good = [ledgers.written(registry, each, SEGMENT_LENGTH) for each in versions]
        env = environ(
            f"127.0.0.1:{ports.proxy}",
            APP,
            MODELS=str(registry.root),
            MODEL=good[0].reference,
            RECOMMEND=str(RECOMMEND),
            TOP_K=str(TOP_K),
            KEEP_SEGMENTS=str(KEEP_SEGMENTS),
            METRICS_LISTEN="",
            **options.patience.settings(),
        )
        small = disk.SmallDisk(folder / "disk", DISK_MB) if disk.possible() else None
        if small is not None:
            running.callback(small.close)
        supervisor = Supervisor()
        running.callback(supervisor.close)
        workers = {
            name: Worker(name, env, folder) for name in (BYSTANDER, *(f"w{n}" for n in range(1, options.workers - 1)))
        }
        last = f"w{options.workers - 1}"
        workers[last] = (
            Worker(last, env, folder)
            if small is None
            else Worker(
                last, env, folder, state=small.folder / "state", files=small.outside / "state", prefix=small.prefix
            )
        )
        for worker in workers.values():
            supervisor.look_after(worker)
        drawn, aside = random.Random(options.seed), random.Random(options.seed + 1)
        yield World(
            kafka=broker,
            proxy=proxy,
            workers=workers,
            supervisor=supervisor,
            feeder=Feeder(broker.direct, TOPIC, source.records(log, drawn), options.rate),
            upstream=Upstream(broker.direct, TOPIC, source.records(log, aside), aside),
            env=env,
            app=APP,
            topic=TOPIC,
            partitions=options.partitions,
            folder=folder,
            chosen=chosen,
            patience=options.patience,
            models=folder / "models",
            versions=good,
            bad=ledgers.bad(registry, versions[0], SEGMENT_LENGTH),
            disk=small,
            on_disk=workers[last] if small is not None else None,
        )


def _make_topics(bootstrap: str, partitions: int) -> None:
    """As `rec2pm topics create` makes them, then: every list stays readable, and the changelog is compacted all the
    time.
    """
    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 2})
    made = topics.create(admin, topics.plan(APP, TOPIC, LISTS, partitions, 1))
    if refused := [outcome for outcome in made if outcome.result != "created"]:
        raise RuntimeError(f"topics could not be made: {refused}")
    kept = {"min.compaction.lag.ms": str(10 * 86_400_000), "max.compaction.lag.ms": str(11 * 86_400_000)}
    compacted = {
        "min.cleanable.dirty.ratio": "0.01",
        "segment.bytes": str(1 << 20),
        "segment.ms": "5000",
        "delete.retention.ms": str(round(DELETIONS_KEPT_S * 1000)),
    }
    for topic, config in ((LISTS, kept), (topics.changelog_topic(APP), compacted)):
        entries = [
            ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET) for name, value in config.items()
        ]
        resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=entries)
        for future in admin.incremental_alter_configs([resource]).values():
            future.result(30)


def _outcome_of(injection: Injection) -> str:
    if not injection.reached:
        return "could not be caused"
    return (
        "NOT RECOVERED"
        if injection.seconds is None
        else f"recovered after {injection.seconds:.1f} s, longest wait {injection.waited_s:.1f} s"
    )


def _clock(moment: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(moment))
