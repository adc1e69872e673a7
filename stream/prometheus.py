"""A worker's metrics. Each scrape reads the numbers from the worker; the worker itself only counts.

Labels never hold ids of users or items, nor texts of errors. docs/metrics.md is made from this file.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, Literal, get_args

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
    SummaryMetricFamily,
)
from prometheus_client.registry import Collector

from model.errors import ModelFailed
from stream.errors import MalformedInteraction
from stream.partition import OWNED, Phase
from stream.serving import Serving
from stream.worker import Worker

WAITING_WITHIN_S: Final = 15.0
"""Longer than one call waits before it reports that Kafka does not answer: 5 s, or twice that."""

State = Literal["waiting_for_model", "joining", "standby", "restoring", "running", "waiting_for_kafka"]
STATES: Final[tuple[State, ...]] = get_args(State)

_COUNTS: Final = {
    "steps": "Steps published",
    "records": "Records of the interactions topic in published steps",
    "interactions": "Interactions remembered",
    "folds": "Segments folded",
    "lists": "Lists published",
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


def registry(worker: Worker, limit_bytes: int | None) -> CollectorRegistry:
    """Everything that `/metrics` has: of the worker, and of its process.

    Args:
        limit_bytes: of the memory of its container; None if there is none.
    """
    made = CollectorRegistry()
    made.register(WorkerMetrics(worker, limit_bytes))
    ProcessCollector(registry=made)
    return made


def registry_while_waiting() -> CollectorRegistry:
    """What `/metrics` has while there is no model to serve yet."""
    made = CollectorRegistry()
    made.register(_WaitingForModel())
    ProcessCollector(registry=made)
    return made


def state_of(worker: Worker) -> State:
    """What the worker does, in a word. Waiting for Kafka comes first: the rest does not go on meanwhile."""
    if worker.clock() - worker.link.waited_at < WAITING_WITHIN_S:
        return "waiting_for_kafka"
    phases = [partition.phase for partition in worker.partitions.all()]
    if not phases:
        return "standby" if worker.partitions.joined else "joining"
    return "running" if all(phase is Phase.RUNNING for phase in phases) else "restoring"


class WorkerMetrics(Collector):
    """The worker's counts at the time of the scrape."""

    def __init__(self, worker: Worker, limit_bytes: int | None = None) -> None:
        self._worker = worker
        self._limit_bytes = limit_bytes

    def collect(self) -> Iterable[Metric]:
        worker = self._worker
        yield _state(state_of(worker))
        yield from _counts(worker)
        yield from _partitions(worker)
        yield from _restores(worker)
        yield from _lag(worker)
        yield from _refold(worker)
        yield from _models(worker.serving)
        yield from _times(worker)
        limit = GaugeMetricFamily(
            "rec2pm_memory_limit_bytes", "Memory that the container of the worker may have, where it has a limit."
        )
        if self._limit_bytes is not None:
            limit.add_metric([], self._limit_bytes)
        yield limit


class _WaitingForModel(Collector):
    def collect(self) -> Iterable[Metric]:
        yield _state("waiting_for_model")


def _state(now: State) -> Metric:
    gauge = GaugeMetricFamily("rec2pm_state", "1 for what the worker does, 0 for the others.", labels=["state"])
    for state in STATES:
        gauge.add_metric([state], float(state == now))
    return gauge


def _counts(worker: Worker) -> Iterator[Metric]:
    counts = worker.counts
    for name, meaning in _COUNTS.items():
        yield CounterMetricFamily(f"rec2pm_{name}", f"{meaning}.", value=getattr(counts, name))
    yield _counter("aborted", "Steps aborted and computed again, by the reason.", "reason", worker.aborts.items())
    refused = {
        MalformedInteraction.__name__: counts.dead_letters - counts.model_failures,
        ModelFailed.__name__: counts.model_failures,
    }
    yield _counter(
        "dead_letters", "Records refused and sent to the dead-letter topic, by the error.", "reason", refused.items()
    )


def _counter(name: str, meaning: str, label: str, values: Iterable[tuple[str, int]]) -> Metric:
    counter = CounterMetricFamily(f"rec2pm_{name}", meaning, labels=[label])
    for value, number in values:
        counter.add_metric([value], number)
    return counter


def _gauge(name: str, meaning: str, values: Mapping[int, float]) -> Metric:
    """A gauge with a value for each of some partitions."""
    gauge = GaugeMetricFamily(f"rec2pm_{name}", meaning, labels=["partition"])
    for number, value in values.items():
        gauge.add_metric([str(number)], value)
    return gauge


def _partitions(worker: Worker) -> Iterator[Metric]:
    phases = Counter(partition.phase for partition in worker.partitions.all())
    gauge = GaugeMetricFamily("rec2pm_partitions", "Partitions of this worker, by phase.", labels=["phase"])
    for phase in OWNED:
        gauge.add_metric([phase.name.lower()], phases[phase])
    yield gauge
    yield _gauge("store_bytes", "Bytes of the partition's local store, in files.", worker.partitions.store_bytes())


def _lag(worker: Worker) -> Iterator[Metric]:
    now = worker.clock()
    behind = {
        number: found
        for number, position in worker.partitions.reached().items()
        if (found := worker.lag.of(number, position, now)) is not None
    }
    yield _gauge(
        "lag_records",
        "Offsets from the next record to the end of the partition (last stable offset), as the client knew it a few "
        "seconds ago. Without a value before the partition has run here.",
        {number: each.records for number, each in behind.items()},
    )
    yield _gauge(
        "lag_seconds",
        "For how long the worker has known that the partition has a record that it has not taken; 0 if it has taken all. "
        "The oldest such record is at least so old, whatever its timestamp says.",
        {number: each.seconds for number, each in behind.items()},
    )
    yield _gauge(
        "input_held_back_records",
        "Records of the input that wait behind an open transaction of a producer. The lag does not have them.",
        worker.held_back,
    )
    yield GaugeMetricFamily(
        "rec2pm_waiting_for_kafka",
        "1 while Kafka does not answer the worker, else 0.",
        value=float(state_of(worker) == "waiting_for_kafka"),
    )


def _refold(worker: Worker) -> Iterator[Metric]:
    done = {number: float(is_done) for number, is_done in worker.refold.done().items()}
    yield _gauge(
        "refold_done",
        "1 if every user of the partition has a memory in the format of the model that serves, else 0.",
        done,
    )
    yield GaugeMetricFamily(
        "rec2pm_refold_backlog_partitions",
        "Partitions that the background has not ended with.",
        value=sum(not is_done for is_done in done.values()),
    )


def _times(worker: Worker) -> Iterator[Metric]:
    yield GaugeMetricFamily(
        "rec2pm_last_step_timestamp_seconds",
        "When the newest step was published; before the first one, when the worker started.",
        value=worker.stepped_ms / 1000,
    )
    yield GaugeMetricFamily(
        "rec2pm_step_records_limit", "Most records that the next step may have.", value=worker.step_size.limit
    )
    phases = HistogramMetricFamily(
        "rec2pm_step_seconds",
        "How long the phases of steps took. All phases together are the whole step; the wait for records is no part of it.",
        labels=["phase"],
    )
    times = worker.step_times
    for phase, seconds in times.phases.items():
        phases.add_metric([phase], seconds.buckets(), seconds.sum_s)
    yield phases
    yield HistogramMetricFamily(
        "rec2pm_whole_step_seconds",
        "How long steps took, from a poll's records to the store.",
        buckets=times.whole.buckets(),
        sum_value=times.whole.sum_s,
    )
    cost = worker.step.recommender.cost
    yield SummaryMetricFamily(
        "rec2pm_fold_seconds",
        "Seconds of the model for folds, also of memories that are rebuilt and of steps that are computed again.",
        count_value=cost.folds,
        sum_value=cost.fold_seconds,
    )
    yield SummaryMetricFamily(
        "rec2pm_list_seconds",
        "Seconds of the model for lists, also of steps that are computed again.",
        count_value=cost.lists,
        sum_value=cost.list_seconds,
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
    yield _counter(
        "promotions", "Promoted versions, by what came of them in this worker.", "result", serving.came_of_it.items()
    )
    yield GaugeMetricFamily(
        "rec2pm_model_preparation_seconds",
        "Seconds from the promotion's record to a version that was ready, for the last one.",
        value=serving.prepared_s,
    )


def _restores(worker: Worker) -> Iterator[Metric]:
    yield _counter("restores", "Restores that began, by the reason.", "reason", worker.partitions.restores.items())
    found = {
        partition.number: progress
        for partition in worker.partitions.all()
        if (restore := partition.restore) is not None and (progress := restore.progress()) is not None
    }
    yield _gauge(
        "restore_remaining_records",
        "Changelog offsets not restored yet.",
        {number: each.remaining for number, each in found.items()},
    )
    yield _gauge(
        "restore_records",
        "Changelog records that the restore has read.",
        {number: each.records for number, each in found.items()},
    )
    yield _gauge(
        "restore_records_per_second",
        "Changelog records restored per second, on average since the restore began.",
        {number: each.per_s for number, each in found.items()},
    )
    yield _gauge(
        "restore_seconds_left",
        "Seconds until the restore ends at this rate, at most.",
        {number: each.seconds_left for number, each in found.items() if each.seconds_left is not None},
    )
