"""What a worker answers over HTTP: `/metrics` for Prometheus, `/livez` and `/readyz` for a supervisor."""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from prometheus_client.exposition import choose_encoder

from stream.errors import SettingsInvalid
from stream.http_server import Answer, Answers, HttpServer
from stream.memory_limit import memory_limit_bytes
from stream.partition import Phase
from stream.prometheus import registry, registry_while_waiting
from stream.worker import Worker

logger = logging.getLogger(__name__)

ALIVE_WITHIN_S: Final = 60.0
"""A loop without a turn for this long is stuck. A step, or one call to a broker that is away, takes less."""
_PATHS: Final = b"/metrics, /livez, /readyz\n"


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
    """Answer probes while a worker has no model to serve: alive, and not ready. Its metrics say so too. Otherwise as
    `served`.

    Args:
        why: what it waits for.
    """

    collected = registry_while_waiting()

    def answer(path: str, accept: str) -> Answer:
        if path == "/metrics":
            encode, content_type = choose_encoder(accept)
            return Answer(200, encode(collected), content_type)
        if path == "/livez":
            return _said(True, "waits for a model", who)
        if path == "/readyz":
            return _said(False, why(), who)
        return Answer(404, _PATHS)

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
    collected = registry(worker, memory_limit_bytes())

    def answer(path: str, accept: str) -> Answer:
        if path == "/metrics":
            encode, content_type = choose_encoder(accept)
            return Answer(200, encode(collected), content_type)
        if path == "/livez":
            return _said(*_alive(worker, clock()), who)
        if path == "/readyz":
            return _said(*_ready(worker), who)
        return Answer(404, _PATHS)

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
