"""From settings to a running worker: the composition root. It alone sets clock, logging, signals and torch threads."""

import ctypes
import gc
import logging
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Final

from model.version.cache import Cache
from model.version.registry import Registry
from model.version.runtime import Runtime
from state.store import StoreMemory
from stream.doubts import Doubts
from stream.errors import Action, StreamError, TopicsUnusable, action_on
from stream.event import EventReader
from stream.fault_points import At, passing
from stream.kafka.admin import admin_client
from stream.kafka.link import KafkaLink
from stream.kafka.models_topic import ModelsReader, Reporter
from stream.kafka.options import MemoryBudget
from stream.kafka.record_limits import RecordLimits, record_limits
from stream.kafka.restore import ChangelogRestore
from stream.kafka.shown_topics import deletions_kept_ms
from stream.kafka.topic_problems import Problem, check
from stream.kafka.watch import watching
from stream.key_check import KeyCheck
from stream.keys import KeyFormat
from stream.partition import Partition, Phase
from stream.partitions import Partitions
from stream.policy import RefusedShare, StepSize
from stream.probes import served, waiting
from stream.promotion.first import first_version
from stream.promotion.follow import Following, following, waiting_for
from stream.promotion.loading import Loader
from stream.promotion.record import Promotion
from stream.refold import Refold
from stream.serving import Served, Serving
from stream.settings import Settings
from stream.state_folder import private
from stream.step import Rules, Step, check_segment_length
from stream.torch_threads import one_thread
from stream.worker import Worker
from stream.worker_name import claim

logger = logging.getLogger(__name__)

_M_ARENA_MAX: Final = -8  # malloc.h
_ARENAS: Final = 2
_CACHE: Final = ".models"
"""The folder of fetched versions, beside those of the workers, whose names do not begin with a dot."""


def run_worker(settings: Settings, at: At = passing) -> Worker:
    """Run one worker until SIGTERM or SIGINT: finish the step, commit, leave the group. Returns it for its counts.

    `at` is called at the fault points, for the fault tests.

    Raises:
        KeyboardInterrupt: SIGINT stopped the worker, as cleanly as SIGTERM does.
    """
    keys = KeyFormat(settings.key_format)
    clock, budget = time.monotonic, MemoryBudget(settings.memory_mb << 20)
    give_back = _keep_memory_together()
    one_thread()
    try:
        known, deletions_kept_ms, limits = _check_topics(settings)
    except TopicsUnusable:
        # Without its topics nothing is promoted, so the settings choose the model: its faults are said first.
        version = Registry(settings.models).resolve(settings.model)
        Runtime.load(version.uri, version.sha256)
        raise
    folder = private(settings.state_dir / settings.app)
    worker_name = claim(folder / "slots", settings.worker)
    promotions = _Promotions(settings, worker_name.name, folder / _CACHE, at)
    first = promotions.first()
    serving = Serving(first)
    model = first.recommender.model
    logger.info(
        "model loaded model=%s memory_format=%s segment_length=%d state_bytes=%d",
        first.reference,
        model.memory_format,
        model.segment_length,
        4 * model.state_floats,
    )
    link = KafkaLink(
        bootstrap=settings.bootstrap_servers,
        app=settings.app,
        worker_name=worker_name.name,
        named=settings.worker is not None,
        interactions_topic=settings.interactions_topic,
        recommendations_topic=settings.recommendations_topic,
        output_format=settings.output_format,
        keys=keys,
        memory=budget,
        extra=settings.kafka,
        clock=clock,
        limits=limits,
        at=at,
    )

    def begin_restore(partition: Partition, memory: StoreMemory) -> ChangelogRestore:
        return ChangelogRestore(
            topic=link.changelog_topic,
            partition=partition,
            memory=memory,
            config=link.changelog_reader,
            committed=link.committed,
            changelog=link.changelog,
            deletions_kept_ms=deletions_kept_ms,
            clock=clock,
            wall_ms=_wall_ms,
            at=at,
        )

    def check_model(partition: Partition) -> None:
        check_segment_length(partition, worker.step.recommender.model)

    partitions = Partitions(
        folder=folder / worker_name.name,
        memory=StoreMemory(budget.stores),
        cache_users=settings.cache_users,
        begin_restore=begin_restore,
        resume=link.resume,
        pause=link.pause,
        check=check_model,
        at=at,
    )
    worker = Worker(
        link=link,
        partitions=partitions,
        step=Step(
            partitions,
            first.recommender,
            Rules(
                settings.recommend,
                settings.top_k,
                settings.exclude,
                settings.keep_segments,
                settings.keep_formats,
            ),
        ),
        serving=serving,
        topic=settings.interactions_topic,
        keys=keys,
        doubts=Doubts(settings.interactions_topic, KeyCheck(settings.interactions_topic, settings.partitioner, keys)),
        events=EventReader(settings.fields, settings.times),
        step_size=StepSize(budget_s=settings.step_budget_ms / 1000, largest=settings.step_records),
        refused=RefusedShare(settings.max_refused),
        refold=Refold(settings.refold_per_s, clock),
        wait_s=settings.wait_ms / 1000,
        clock=clock,
        wall_ms=_wall_ms,
        give_back=give_back,
        at=at,
    )
    _spare_the_cycle_collector()
    logger.info(
        "worker starts app=%s worker=%s bootstrap=%s", settings.app, worker_name.name, settings.bootstrap_servers
    )
    with (
        _stopped_by_signals(worker) as signals,
        _metrics(worker, settings, worker_name.name),
        _watching(worker, settings, known),
        promotions.followed(serving),
    ):
        link.stop_waiting_if(lambda: worker.stopping)
        try:
            link.start(partitions)
            worker.run()
        except StreamError as error:
            if action_on(error) is not Action.LEAVE:
                raise
            logger.info("%s", error)
        finally:
            # Leaving the group revokes the partitions, which closes their stores. What an error left open is closed
            # after that.
            link.close()
            partitions.close()
            worker_name.release()
    logger.info("worker stopped: %s", worker.counts.words())
    if signal.SIGINT in signals:
        raise KeyboardInterrupt
    return worker


class _Promotions:
    """What a worker needs to follow promotions, and to report what it serves."""

    def __init__(self, settings: Settings, worker: str, cache: Path, at: At) -> None:
        self._settings = settings
        self._worker = worker
        self._alias = None if settings.follow == "none" else settings.follow
        self._loader = Loader(registry=Registry(settings.models), cache=Cache(cache), at=at)
        options = {"bootstrap.servers": settings.bootstrap_servers, **settings.kafka}
        self._reader = ModelsReader(options, settings.app)
        self._reports = Reporter(options, settings.app, worker)

    def first(self) -> Served:
        """The version to begin with. While there is none, probes are answered: alive and not ready."""
        settings, reason = self._settings, ["reading which version is promoted"]

        def waits(promotion: Promotion, why: str) -> None:
            reason[0] = f"waits for {promotion.version}: {why}"
            self._reports.report(waiting_for(promotion, self._worker, why, _wall_ms()))

        with waiting(
            settings.metrics_listen,
            lambda: reason[0],
            who=f"application {settings.app}, worker {self._worker}",
            by_default="metrics_listen" not in settings.model_fields_set,
        ):
            return first_version(
                loader=self._loader,
                configured=settings.model,
                alias=self._alias,
                reader=self._reader,
                waiting=waits,
            )

    def followed(self, serving: Serving) -> AbstractContextManager[None]:
        return following(
            Following(
                worker=self._worker,
                alias=self._alias,
                reader=self._reader,
                reports=self._reports,
                loader=self._loader,
                serving=serving,
                wall_ms=_wall_ms,
            ),
            self._reader,
            self._reports,
        )


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000


def _watching(worker: Worker, settings: Settings, known: Sequence[Problem]) -> AbstractContextManager[None]:
    def note(held_back: Mapping[int, int]) -> None:
        worker.held_back = held_back

    return watching(
        {"bootstrap.servers": settings.bootstrap_servers, **settings.kafka},
        check=lambda admin: check(admin, settings.app, settings.interactions_topic, settings.recommendations_topic),
        known=known,
        interactions=settings.interactions_topic,
        partitions=lambda: [each.number for each in worker.partitions.all() if each.phase is Phase.RUNNING],
        note=note,
    )


def _check_topics(settings: Settings) -> tuple[Sequence[Problem], int, RecordLimits]:
    """Refuse topics that do not fit. Returns what else is wrong with them, how long the changelog keeps deletions, ms,
    and how large records are.
    """
    admin = admin_client(settings)
    problems = check(admin, settings.app, settings.interactions_topic, settings.recommendations_topic)
    for problem in problems:
        if problem.severity == "warning":
            logger.warning("topic=%s %s", problem.topic, problem.line)
    wrong = [problem.line for problem in problems if problem.severity == "error"]
    if wrong:
        raise TopicsUnusable("\n".join(wrong))
    limits = record_limits(admin, settings.app, settings.interactions_topic, settings.recommendations_topic)
    return problems, deletions_kept_ms(admin, settings.app), limits


def _metrics(worker: Worker, settings: Settings, name: str) -> AbstractContextManager[int | None]:
    return served(
        worker,
        settings.metrics_listen,
        worker.clock,
        who=f"application {settings.app}, worker {name}",
        by_default="metrics_listen" not in settings.model_fields_set,
    )


def _spare_the_cycle_collector() -> None:
    """Run the cycle collector rarely: reference counting frees the lists of a step, so it finds nothing in them."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(500_000, 50, 100)


def _keep_memory_together() -> Callable[[], object]:
    """Make the allocator use few arenas. The returned function gives free memory back to the system.

    Clients start and end threads. glibc would give each of the first eight threads per core its own arena, and every
    arena keeps fragments. glibc gives free memory back only on request. That takes milliseconds, or a tenth of a second
    for a large fragmented heap. Other allocators do not have these calls.
    """
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallopt") or not hasattr(libc, "malloc_trim"):
        return lambda: None
    libc.mallopt(_M_ARENA_MAX, _ARENAS)
    return partial(libc.malloc_trim, 0)


@contextmanager
def _stopped_by_signals(worker: Worker) -> Iterator[list[int]]:
    """SIGTERM and SIGINT ask the worker to stop; the list gets their numbers. The previous handlers return
    afterwards.
    """
    signals: list[int] = []

    def stop(number: int, _: FrameType | None) -> None:
        logger.info("stopping signal=%s", signal.Signals(number).name)
        signals.append(number)
        worker.stop()

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
