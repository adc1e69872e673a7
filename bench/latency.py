"""Latency from `produce` of an interaction until a read_committed reader has its list, at a steady rate.

Every interaction has its own user and gets its own list, so the two ends can be matched by user.
"""

import statistics
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import msgpack
from confluent_kafka import Consumer, Producer, TopicPartition

from tests.processes import Committed, environ, rec2pm, wait_until, workers

PARTITIONS = 4


@dataclass(frozen=True)
class Latency:
    """Milliseconds from produce to read."""

    rate: float
    sent: int
    p50: float
    p99: float
    worst: float


def measure(
    bootstrap: str, folder: Path, models: Path, model: str, *, rate: float, seconds: float, wait_ms: int
) -> Latency:
    """Measure one worker under a light load."""
    app = f"latency-{time.time_ns() % 10**9}"
    env = environ(bootstrap, app, MODELS=str(models), MODEL=model, STATE_DIR=str(folder / app), WAIT_MS=str(wait_ms))
    if (made := rec2pm("topics", "create", "--partitions", str(PARTITIONS), env=env)).returncode:
        raise RuntimeError(made.stderr)
    reader = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": f"{app}-reader",
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "fetch.wait.max.ms": 10,
        }
    )
    reader.assign([TopicPartition(f"{app}.out", number, 0) for number in range(PARTITIONS)])
    sent: dict[bytes, float] = {}
    got: dict[bytes, float] = {}
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            message = reader.poll(0.1)
            if message is not None and message.error() is None:
                got.setdefault(message.key() or b"", time.perf_counter())

    thread = threading.Thread(target=read)
    with workers(1, env, folder):
        producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 0, "partitioner": "murmur2_random"})
        thread.start()
        try:
            producer.produce(f"{app}.in", msgpack.packb({"item": 1, "ts": 1}), b"first")
            committed = Committed(bootstrap, app, f"{app}.in")
            wait_until(lambda: committed.total() == 1, 60, "the worker's first step")
            began = time.perf_counter()
            for at in range(int(rate * seconds)):
                while (ahead := began + at / rate - time.perf_counter()) > 0:
                    producer.poll(min(ahead, 0.001))
                user = b"user-%d" % at
                sent[user] = time.perf_counter()
                producer.produce(f"{app}.in", msgpack.packb({"item": at % 1000, "ts": at}), user)
            producer.flush()
            wait_until(lambda: sent.keys() <= got.keys(), 30, "a list for every interaction")
        finally:
            done.set()
            thread.join()
            reader.close()
    waited = sorted((got[user] - at) * 1000 for user, at in sent.items())
    return Latency(rate, len(waited), statistics.median(waited), waited[int(len(waited) * 0.99)], waited[-1])
