"""Whatever a producer or a topic compresses with, every reader of ours reads it with what its extra brings.

The view reads with aiokafka, everything else with librdkafka: one may lack a codec that the other knows.
"""

from collections.abc import Callable, Iterator
from typing import Final
from uuid import uuid4

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)

from stream.commands.broker import Broker
from stream.kafka.options import PRODUCER
from stream.kafka.read_topic import committed_records, partitions
from stream.kafka.topics import create, plan
from stream.wire import Recommendation, recommendation_as_msgpack
from tests.crash.ports import free_port
from tests.e2e.environment import Environment
from tests.e2e.journey import CODECS
from tests.e2e.programs import FromWheel, get, until, wait_for

USERS: Final = 20
TABLE: Final = [
    *((codec, "producer") for codec in CODECS),
    *((str(PRODUCER["compression.type"]), codec) for codec in ("uncompressed", *CODECS[1:])),
]
"""What the producer compresses with, and the topic's `compression.type`: there `producer` keeps what comes."""


class Lists:
    """The recommendations topic of one application, written as a worker does."""

    def __init__(self, bootstrap: str) -> None:
        app = f"test-{uuid4().hex[:12]}"
        self.settings = {"BOOTSTRAP_SERVERS": bootstrap, "APP": app, "RECOMMENDATIONS_TOPIC": f"{app}.out"}
        self.topic = f"{app}.out"
        self._bootstrap = bootstrap
        self._admin = AdminClient({"bootstrap.servers": bootstrap})
        create(self._admin, plan(app, f"{app}.in", self.topic, 3, 1))

    def compressed_by(self, codec: str) -> None:
        """The topic's own setting: the broker compresses anew what comes otherwise."""
        entry = ConfigEntry("compression.type", codec, incremental_operation=AlterConfigOpType.SET)
        asked = [ConfigResource(ResourceType.TOPIC, self.topic, incremental_configs=[entry])]
        for future in self._admin.incremental_alter_configs(asked).values():
            future.result(30)

    def write(self, prefix: str, codec: str) -> list[str]:
        """So many users get a list, in one transaction; their names."""
        options = {**PRODUCER, "compression.type": codec, "bootstrap.servers": self._bootstrap}
        producer = Producer({**options, "transactional.id": f"{self.topic}-{prefix}"})
        producer.init_transactions(30)
        producer.begin_transaction()
        users = [f"{prefix}-{number}" for number in range(USERS)]
        for user in users:
            producer.produce(self.topic, recommendation_as_msgpack(a_list(user)), user)
        producer.commit_transaction(30)
        return users


def a_list(user: str) -> Recommendation:
    items: list[int | str] = [f"{user}'s item {rank}" for rank in range(20)]
    return Recommendation(items, [0.5] * 20, 1, 0, 7, taken=3, folds=0, model="m@1", source="working")


@pytest.fixture(scope="module")
def lists(broker: Broker) -> Lists:
    return Lists(broker.bootstrap)


@pytest.fixture(scope="module")
def programs(
    lists: Lists, with_extra: Callable[[str], Environment], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[FromWheel]:
    made = FromWheel(tmp_path_factory.mktemp("codecs"), lists.settings, {"view": with_extra("view")})
    yield made
    made.close()


@pytest.fixture(scope="module")
def view(programs: FromWheel) -> int:
    """The port of a view that follows the topic."""
    return started_view(programs, "follows")


def started_view(programs: FromWheel, name: str) -> int:
    port = free_port()
    wait_for(programs.start(name, "view", "--listen", f"127.0.0.1:{port}", "--name", name), port, "/ready")
    return port


@pytest.mark.parametrize(("producer", "topic"), TABLE)
def test_lists_are_read_as_they_come_and_from_the_beginning(
    producer: str, topic: str, lists: Lists, view: int, broker: Broker
) -> None:
    if topic != "producer":
        if broker.kind == "embedded":
            pytest.skip("the embedded broker does not compress")
        lists.compressed_by(topic)
    users = lists.write(f"{producer}-{topic}", producer)

    until(lambda: all(get(view, f"/recommendations/{user}")[0] == 200 for user in users), "the view has the lists")
    assert get(view, f"/recommendations/{users[0]}")[1]["items"] == a_list(users[0]).items
    kafka = {"bootstrap.servers": broker.bootstrap}
    read = [
        message.key().decode()  # type: ignore[union-attr]
        for partition in partitions(kafka, lists.topic)
        for message in committed_records(kafka, lists.topic, partition)
    ]
    assert set(users) <= set(read)


def test_a_view_that_starts_later_reads_every_codec(lists: Lists, programs: FromWheel, broker: Broker) -> None:
    if broker.kind != "embedded":
        lists.compressed_by("producer")
    users = [lists.write(f"later-{codec}", codec)[0] for codec in CODECS]
    port = started_view(programs, "later")
    assert [get(port, f"/recommendations/{user}")[0] for user in users] == [200] * len(users)
