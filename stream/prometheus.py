"""What a running worker answers over HTTP: `/metrics` for Prometheus, `/livez` and `/readyz` for a supervisor.

Each scrape reads the numbers from the worker; the worker itself only counts. Labels never hold ids of users or items.
docs/metrics.md is made from this file.
"""

import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from stream.errors import SettingsInvalid
from stream.http_server import Answer, Answers, HttpServer
from stream.partition import OWNED, Phase
from stream.serving import Serving
from stream.worker import Worker

logger = logging.getLogger(__name__)

ALIVE_WITHIN_S: Final = 60.0
"""A loop without a turn for this long is stuck. A step, or one call to a broker that is away, takes less."""
WAITING_WITHIN_S: Final = 15.0
"""Longer than one call waits before it reports that Kafka does not answer: 5 s, or twice that."""

_COUNTS: Final = {
    "steps": "Steps published",
    "aborted": "Steps aborted and computed again",
    "records": "Records of the interactions topic in published steps",
    "interactions": "Interactions remembered",
    "folds": "Segments folded",
    "lists": "Lists published",
    "dead_letters": "Records refused and sent to the dead-letter topic",
    "model_failures": "Records refused because the model failed on them",
    "forgotten": "Users forgotten because of a null value",
    "passed_over": "Events passed over because REC2PM_EVENTS does not name their kind",
    "implausible_times": "Interactions whose time is not plausible; the record's own timestamp stands for it",
    "unknown_items": "Interactions with an item that the model does not know",
    "rebuilt": "Preference memories rebuilt because the model has another memory format",
    "rebuilt_from_part": "Of these, memories that lack segments, because they were not kept (REC2PM_KEEP_SEGMENTS)",
    "refolded": "Preference memories rebuilt in the background (REC2PM_REFOLD_PER_S)",
    "refold_looked": "Users that the background has looked at for a memory in another format",
    "keys_compared": "Keys compared with their partitions: some of each step",
    "keys_misplaced": "Compared keys that REC2PM_PARTITIONER sends to another partition",
}


class WorkerMetrics(Collector):
    """The worker's counts at the time of the scrape."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    def collect(self) -> Iterable[Metric]:
        worker = self._worker
        for name, meaning in _COUNTS.items():
            yield CounterMetricFamily(f"rec2pm_{name}", f"{meaning}.", value=getattr(worker.counts, name))
        phases = Counter(partition.phase for partition in worker.partitions.all())
        gauge = GaugeMetricFamily("rec2pm_partitions", "Partitions of this worker, by phase.", labels=["phase"])
        for phase in OWNED:
            gauge.add_metric([phase.name.lower()], phases[phase])
        yield gauge
        yield from _restores(worker)
        held = GaugeMetricFamily(
            "rec2pm_input_held_back_records",
            "Records of the input that wait behind an open transaction of a producer.",
            labels=["partition"],
        )
        for number, records in worker.held_back.items():
            held.add_metric([str(number)], records)
        yield held
        done = GaugeMetricFamily(
            "rec2pm_refold_done",
            "1 if every user of the partition has a memory in the format of the model that serves, else 0.",
            labels=["partition"],
        )
        for number, is_done in worker.refold.done().items():
            done.add_metric([str(number)], float(is_done))
        yield done
        waited = worker.clock() - worker.link.waited_at
        yield GaugeMetricFamily(
            "rec2pm_waiting_for_kafka",
            "1 while Kafka does not answer the worker, else 0.",
            value=float(waited < WAITING_WITHIN_S),
        )
        yield GaugeMetricFamily(
            "rec2pm_step_records_limit", "Most records that the next step may have.", value=worker.step_size.limit
        )
        yield from _models(worker.serving)
        times = worker.step_times
        yield HistogramMetricFamily(
            "rec2pm_step_seconds",
            "How long steps took, from a poll's records to the store.",
            buckets=times.buckets(),
            sum_value=times.sum_s,
        )


def _models(serving: Serving) -> Iterator[Metric]:
    serves, promoted = serving.serves, serving.promoted
    yield InfoMetricFamily(
        "rec2pm_model",
        "The model version that this worker serves, and why: promoted, configured or local.",
        value={"model": serves.reference, "source": serves.source, "sha256": serves.sha256},
    )
    yield InfoMetricFamily(
        "rec2pm_promoted_model",
        "The model version that is promoted; empty if none is.",
        value={"model": promoted or ""},
    )
    yield GaugeMetricFamily(
        "rec2pm_serves_promoted",
        "1 if the worker serves the promoted version, or if none is promoted, else 0.",
        value=float(serving.as_promoted),
    )
    came = CounterMetricFamily(
        "rec2pm_promotions", "Promoted versions, by what came of them in this worker.", labels=["result"]
    )
    for result, number in serving.came_of_it.items():
        came.add_metric([result], number)
    yield came
    yield GaugeMetricFamily(
        "rec2pm_model_preparation_seconds",
        "Seconds from the promotion's record to a version that was ready, for the last one.",
        value=serving.prepared_s,
    )


def _restores(worker: Worker) -> Iterator[Metric]:
    remaining = GaugeMetricFamily(
        "rec2pm_restore_remaining_records", "Changelog offsets not restored yet.", labels=["partition"]
    )
    read = GaugeMetricFamily(
        "rec2pm_restore_records", "Changelog records that the restore has read.", labels=["partition"]
    )
    rate = GaugeMetricFamily(
        "rec2pm_restore_records_per_second",
        "Changelog records restored per second, on average since the restore began.",
        labels=["partition"],
    )
    left = GaugeMetricFamily(
        "rec2pm_restore_seconds_left",
        "Seconds until the restore ends at this rate, at most.",
        labels=["partition"],
    )
    for partition in worker.partitions.all():
        if partition.restore is not None and (progress := partition.restore.progress()) is not None:
            number = [str(partition.number)]
            remaining.add_metric(number, progress.remaining)
            read.add_metric(number, progress.records)
            rate.add_metric(number, progress.per_s)
            if progress.seconds_left is not None:
                left.add_metric(number, progress.seconds_left)
    yield from (remaining, read, rate, left)


@contextmanager
def served(
    worker: Worker, listen: str, clock: Callable[[], float], *, who: str, by_default: bool
) -> Iterator[int | None]:
    """Answer on `listen` (HOST:PORT) while the block runs; do not if it is empty. Yields the port.

    Args:
        who: names the application and the worker in the answers to probes: a probe may have reached another worker.

    Raises:
        SettingsInvalid: the port cannot be used. With `by_default` (the operator did not choose it) there is only a
            warning: a second worker on the machine has the same default.
    """
    with listening(listen, _answers(worker, clock, who), by_default=by_default) as port:
        if port is not None:
            logger.info("metrics at http://%s:%d/metrics", listen.rpartition(":")[0], port)
        yield port


@contextmanager
def waiting(listen: str, why: Callable[[], str], *, who: str, by_default: bool) -> Iterator[int | None]:
    """Answer probes while a worker has no model to serve: alive, and not ready. Otherwise as `served`.

    Args:
        why: what it waits for.
    """

    def answer(path: str, _: str) -> Answer:
        if path == "/livez":
            return _said(True, "waits for a model", who)
        if path == "/readyz":
            return _said(False, why(), who)
        return Answer(404, b"/livez, /readyz\n")

    with listening(listen, answer, by_default=by_default) as port:
        yield port


@contextmanager
def listening(listen: str, answers: Answers, *, by_default: bool) -> Iterator[int | None]:
    """Answer on `listen` while the block runs; see `served`."""
    if not listen:
        yield None
        return
    host, _, port = listen.rpartition(":")
    try:
        server = HttpServer(host, int(port), answers)
    except (OSError, OverflowError) as error:
        if by_default:
            logger.warning(
                "metrics off: %s is in use (%s); give each worker on a machine its own REC2PM_METRICS_LISTEN",
                listen,
                error,
            )
            yield None
            return
        raise SettingsInvalid(
            f"REC2PM_METRICS_LISTEN={listen}: {error}. Give each worker on a machine its own port, or none"
        ) from error
    thread = threading.Thread(target=server.serve, name="metrics", daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.stop()


def _answers(worker: Worker, clock: Callable[[], float], who: str) -> Answers:
    registry = CollectorRegistry()
    registry.register(WorkerMetrics(worker))

    def answer(path: str, accept: str) -> Answer:
        if path == "/metrics":
            encode, content_type = choose_encoder(accept)
            return Answer(200, encode(registry), content_type)
        if path == "/livez":
            return _said(*_alive(worker, clock()), who)
        if path == "/readyz":
            return _said(*_ready(worker), who)
        return Answer(404, b"/metrics, /livez, /readyz\n")

    return answer


def _alive(worker: Worker, now: float) -> tuple[bool, str]:
    # A worker that waits for Kafka is alive: a restart would not bring Kafka back.
    silent = now - max(worker.turned_at, worker.link.waited_at)
    return silent < ALIVE_WITHIN_S, f"the loop turned, or noticed that Kafka is away, {silent:.1f} s ago"


def _ready(worker: Worker) -> tuple[bool, str]:
    phases = [partition.phase for partition in worker.partitions.all()]
    if not phases and worker.partitions.joined:
        return True, "standby: in the group, which has no partition for this worker"
    if not phases:
        return False, "not in the group yet"
    running = phases.count(Phase.RUNNING)
    return running == len(phases), f"{running} of {len(phases)} assigned partitions are running"


def _said(good: bool, text: str, who: str) -> Answer:
    return Answer(200 if good else 503, f"{text} ({who})\n".encode())
