"""Questions to Kafka: what is committed, and how long the changelog is. The loop does not wait for the answers.

Other threads ask Kafka. Each method returns None until the answer is there; call it again in a later turn.
"""

import logging
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final

from confluent_kafka import (
    Consumer,
    IsolationLevel,
    KafkaError,
    KafkaException,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, OffsetSpec

from stream.errors import KafkaUnusable
from stream.kafka import lineage
from stream.kafka.errors import comes_back, explained, stop
from stream.kafka.lineage import Changelog, Committed, KnownChangelog
from stream.kafka.options import logger_of
from stream.kafka.outage import Outage

logger = logging.getLogger(__name__)

CALL_S: Final = 5.0
_ASK_AGAIN_S: Final = 1.0
_THREADS: Final = 4
_KNOWS_NO_IDS: Final = (KafkaError.UNSUPPORTED_VERSION, KafkaError._UNSUPPORTED_FEATURE)


class Questions:
    """Questions about one input topic and its changelog."""

    def __init__(
        self,
        *,
        consumer: Callable[[], Consumer],
        options: Mapping[str, Any],
        interactions: str,
        changelog: str,
        known: KnownChangelog,
        outage: Outage,
    ) -> None:
        """Args:
        consumer: the consumer in the group.
        options: for an admin client.
        known: the answers about the changelog are checked against it.
        """
        self._consumer = consumer
        self._options = options
        self._interactions = interactions
        self._changelog_topic = changelog
        self._known = known
        self._outage = outage
        self._admin = self._new_admin()
        self._ask_again_at = outage.clock()
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="questions")
        self._committed: dict[int, Future[Committed | None]] = {}
        self._changelog: dict[int, Future[Changelog | None]] = {}

    def _new_admin(self) -> AdminClient:
        return AdminClient(dict(self._options), logger=logger_of("admin"))

    def forget(self, partition: int) -> None:
        """Drop the questions of an earlier ownership of a partition."""
        self._committed.pop(partition, None)
        self._changelog.pop(partition, None)

    def committed(self, partition: int) -> Committed | None:
        """What the group has committed of an input partition.

        None if Kafka has not answered yet. It does not answer while a transaction with these offsets is open.
        """
        if (asked := self._committed.get(partition)) is None:
            self._committed[partition] = self._threads.submit(self.committed_within, partition, CALL_S)
            # A restore begins with this call, and then needs the changelog's end: an earlier answer would be too old.
            self._changelog.pop(partition, None)
            return None
        if not asked.done():
            return None
        return self._committed.pop(partition).result()

    def committed_within(self, partition: int, within_s: float) -> Committed | None:
        """The same, but this call waits for the answer; None if it does not come in time."""
        place = TopicPartition(self._interactions, partition)
        try:
            (found,) = self._consumer().committed([place], timeout=within_s)
        except KafkaException as error:
            reason: KafkaError | None = error.args[0]
        else:
            reason = found.error
        if reason is None:
            return Committed(found.offset if found.offset >= 0 else None, lineage.read(found.metadata))
        if not comes_back(reason):
            stop(KafkaException(reason), "committed")
        self._outage.note()
        return None

    def changelog(self, partition: int) -> Changelog | None:
        """The changelog partition as it is now; None if Kafka has not answered yet, or does not answer.

        Raises:
            ChangelogUnfit: it is another topic than the known one.
        """
        if self._outage.clock() < self._ask_again_at:
            return None
        if (asked := self._changelog.get(partition)) is None:
            self._changelog[partition] = self._threads.submit(self.changelog_now, partition, self._admin)
            return None
        if not asked.done():
            return None
        found = self._changelog.pop(partition).result()
        if found is None:
            self._ask_again_at = self._outage.clock() + _ASK_AGAIN_S
            # This client asks with the leader epoch that it saw once. After a restart of the broker Kafka refuses that,
            # and the client does not update the epoch.
            self._admin = self._new_admin()
            return None
        self._known.found(partition, found)
        return found

    def changelog_now(self, partition: int, admin: AdminClient) -> Changelog | None:
        """The changelog partition as it is now, asked for as read_uncommitted.

        A read_committed client would get the last stable offset, which somebody's open transaction holds back.
        """
        place = TopicPartition(self._changelog_topic, partition)
        try:
            low, high = (
                admin.list_offsets(
                    {place: spec}, isolation_level=IsolationLevel.READ_UNCOMMITTED, request_timeout=CALL_S
                )[place]
                .result(2 * CALL_S)
                .offset
                for spec in (OffsetSpec.earliest(), OffsetSpec.latest())
            )
            return Changelog(self.topic_id(self._changelog_topic, admin), self._known.partitions, low, high)
        except (KafkaException, TimeoutError) as error:
            if isinstance(error, KafkaException) and not comes_back(error.args[0]):
                stop(error, f"offsets of {place.topic}[{partition}]")
            logger.warning("restore waits partition=%d reason=%s", partition, error)
            self._outage.note()
            return None

    def topic_id(self, topic: str, admin: AdminClient | None = None) -> str:
        """Kafka's id of a topic; empty if the broker has no topic ids. Waits for the answer."""
        return topic_id(self._admin if admin is None else admin, topic)

    def partitions_of(self, topic: str) -> int:
        """How many partitions a topic has. Waits for the answer."""
        try:
            found = self._consumer().list_topics(topic, timeout=CALL_S).topics[topic]
        except KafkaException as error:
            stop(error, f"partitions of {topic}")
        if found.error is not None:
            raise KafkaUnusable(f"{topic}: {explained(found.error)}")
        return len(found.partitions)

    def close(self) -> None:
        """End the questions. No thread may use the consumer once it is closed."""
        self._threads.shutdown(cancel_futures=True)


def topic_id(admin: AdminClient, topic: str) -> str:
    """Kafka's id of a topic; empty if the broker has no topic ids. Waits for the answer."""
    future = admin.describe_topics(TopicCollection([topic]), request_timeout=CALL_S)[topic]
    try:
        found = future.result(2 * CALL_S).topic_id
    except KafkaException as error:
        if error.args[0].code() not in _KNOWS_NO_IDS:
            raise
        logger.warning(
            "topic=%s: the broker does not show topic ids (%s): a topic that is deleted and created again goes unnoticed",
            topic,
            error,
        )
        return ""
    return "" if found is None else str(found)
