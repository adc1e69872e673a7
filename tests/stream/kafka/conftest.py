"""A link whose questions nobody answers: no broker is at its address."""

import time
from collections.abc import Iterator

import pytest

from stream.kafka.link import KafkaLink
from stream.kafka.options import MemoryBudget
from stream.keys import KeyFormat


@pytest.fixture
def link() -> Iterator[KafkaLink]:
    made = KafkaLink(
        bootstrap="127.0.0.1:1",
        app="app",
        worker_name="w1",
        named=False,
        interactions_topic="app.in",
        recommendations_topic="app.out",
        output_format="json",
        keys=KeyFormat(),
        memory=MemoryBudget(64 << 20),
        extra={"log_level": "0"},
        clock=time.monotonic,
    )
    yield made
    made.close()
