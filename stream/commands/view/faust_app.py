"""The table of the view: the compacted recommendations topic is itself the changelog of a Faust table.

Nothing is written to Kafka, and nothing is stored there twice. Every process holds every user, in a consumer group of
its own, so that neither its start nor its death moves anything elsewhere. Only this file knows Faust.
"""

import asyncio
import logging
import ssl
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import faust
from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import TopicDescription
from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread, Consumer

from model.version.file_lock import lock
from stream.errors import KafkaUnusable, SettingsInvalid, TopicsUnusable
from stream.kafka.admin import admin_client
from stream.kafka.names import view_group
from stream.kafka.rights import Right, missing
from stream.keys import KeyFormat
from stream.settings import Settings
from stream.state_folder import private

logger = logging.getLogger(__name__)

_ANSWERS_WITHIN_S: Final = 15.0
_LOOK_EVERY_S: Final = 0.2
_ROCKSDB: Final = {
    "block_cache_size": 8 << 20,
    "write_buffer_size": 4 << 20,
}  # per partition; Faust's own are 2 GiB and 64 MiB


class LatestLists:
    """Every user's newest list, as the recommendations topic has it."""

    def __init__(self, settings: Settings, name: str, needed: Iterable[Right]) -> None:
        """Args:
        needed: the rights of the whole view, which Kafka is asked for first.
        """
        described = _described(settings, needed)
        partitions = len(described.partitions)
        group = view_group(settings.app, name)
        self.folder: Final = private(settings.state_dir.absolute() / group)
        self.partitions: Final = partitions
        self._lock: Final = _locked(self.folder, name)
        self._keys: Final = KeyFormat(settings.key_format)
        self.ready: Final = asyncio.Event()
        self._watchers: Final[defaultdict[bytes, set[asyncio.Queue[bytes | None]]]] = defaultdict(set)
        self._woken: Final[defaultdict[bytes, set[asyncio.Event]]] = defaultdict(set)
        self.received = 0
        """Lists since the view was ready."""
        self.app: Final = faust.App(
            group,
            broker="kafka://" + settings.bootstrap_servers.replace(",", ";"),
            broker_credentials=_credentials(settings.kafka),
            # A killed predecessor stays in the group this long, and joining waits for it.
            broker_session_timeout=6.0,
            broker_heartbeat_interval=1.0,
            consumer_auto_offset_reset="earliest",
            store="rocksdb://",
            # With the topic's id: the store of one topic must never be used for another topic of the same name.
            datadir=self.folder / f"{str(described.topic_id).replace('/', '_')}-{partitions}",  # it is base64
            topic_allow_declare=False,
            topic_disable_leader=True,
            web_enabled=False,
        )
        self.app.transport.Consumer = _CommittedConsumer
        # Without acks, as Faust's own changelogs: it would keep a tree of the gaps that transactions leave, in
        # quadratic time.
        topic = self.app.topic(
            settings.recommendations_topic,
            key_type=bytes,
            value_type=bytes,
            key_serializer="raw",
            value_serializer="raw",
            acks=False,
        )
        # A buffer of one: Faust goes on following the changelog after recovery only then.
        self._table: Final = self.app.GlobalTable(
            "latest",
            key_type=bytes,
            value_type=bytes,
            partitions=partitions,
            changelog_topic=topic,
            recovery_buffer_size=1,
            on_changelog_event=self._on_change,
            options=dict(_ROCKSDB),
        )
        # Faust clears its own queue at the end of a recovery, and so loses the lists that arrived since.
        self.app.tables._changelog_queue = self.app.FlowControlQueue(maxsize=self.app.conf.stream_buffer_maxsize)  # noqa: SLF001
        # Faust 0.15.3 assigns a global table's partitions by this name, which ignores `changelog_topic`: a KeyError
        # that it swallows, and a join that hangs without a message.
        self._table._changelog_topic_name = topic.get_topic_name  # noqa: SLF001

    async def follow(self) -> None:
        """Read the topic until Faust stops or crashes. `ready` is set once everything that was there at the start is
        read.
        """
        await self.app.start()
        if self.app.tables.recovery.completed.is_set():
            self.ready.set()
        await self.app.wait_until_stopped()

    async def _on_change(self, event: Any) -> None:
        """Called by Faust for each record, just before the table has it."""
        self.received += self.ready.is_set()
        for newest in self._watchers.get(event.message.key, ()):
            if newest.full():
                newest.get_nowait()
            newest.put_nowait(event.message.value)
        if waiting := self._woken.get(event.message.key):
            # Who is woken reads the table: after it has the record.
            asyncio.get_running_loop().call_soon(_set_all, tuple(waiting))

    def key(self, user: str) -> bytes:
        """The key of a user's lists. Raises ValueError if no key is this user."""
        return self._keys.key(user)

    def newest(self, key: bytes) -> bytes | None:
        """A user's newest list, as it is in the topic; None when there is none, or it is withdrawn."""
        value: bytes | None = self._table.get(key)
        return value

    @contextmanager
    def watched(self, key: bytes) -> Iterator[asyncio.Queue[bytes | None]]:
        """A queue that gets each new list of a user; a reader that is too slow for all of them gets the newest."""
        newest: asyncio.Queue[bytes | None] = asyncio.Queue(1)
        self._watchers[key].add(newest)
        try:
            yield newest
        finally:
            self._watchers[key].discard(newest)
            if not self._watchers[key]:
                del self._watchers[key]

    @contextmanager
    def woken(self, key: bytes | None, changed: asyncio.Event) -> Iterator[None]:
        """Set an event each time a user has a new list; None is no user."""
        if key is None:
            yield
            return
        self._woken[key].add(changed)
        try:
            yield
        finally:
            self._woken[key].discard(changed)
            if not self._woken[key]:
                del self._woken[key]


def _set_all(events: Iterable[asyncio.Event]) -> None:
    for each in events:
        each.set()


class _CommittedThread(AIOKafkaConsumerThread):  # type: ignore[misc]
    logger = logging.getLogger("faust.view")

    def _create_worker_consumer(self, transport: Any) -> Any:
        # The worker writes in transactions. Faust hides aborted records in its exactly-once mode alone, which would
        # also start a transactional producer per partition; the consumer asks for the mode here and nowhere else.
        self.consumer.in_transaction = True
        try:
            return super()._create_worker_consumer(transport)
        finally:
            self.consumer.in_transaction = False


class _CommittedConsumer(Consumer):  # type: ignore[misc]
    """Reads committed records, and ends a recovery whose last offset is no record."""

    logger = logging.getLogger("faust.view")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._handed_over: dict[Any, int] = {}
        self._look_at = 0.0

    def _new_consumer_thread(self) -> _CommittedThread:
        return _CommittedThread(self, loop=self.loop, beacon=self.beacon)

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[Any, Any]]:
        recovery = self.app.tables.recovery
        if (
            recovery.in_recovery
            and self.flow_active
            and time.monotonic() >= self._look_at
            and await self._has_read(recovery)
        ):
            recovery.flush_buffers()
            recovery._set_recovery_ended()  # noqa: SLF001
            recovery.signal_recovery_end.set()
        async for partition, message in super().getmany(timeout):
            self._handed_over[partition] = message.offset
            yield partition, message

    async def _has_read(self, recovery: Any) -> bool:
        """Whether the table has everything up to the end that the recovery found.

        Faust waits for a record at the last offset, but a transaction ends with a marker, which is never delivered:
        there the position tells. What was fetched has been handed over by the time `getmany` is called again.
        """
        self._look_at = time.monotonic() + _LOOK_EVERY_S
        for partition, end in list(recovery.active_highwaters.items()):
            applied = recovery.active_offsets[partition]
            if applied is None or applied < min(self._handed_over.get(partition, -1), end):
                return False
            if applied < end and ((await self.position(partition)) or 0) <= end:
                return False
        return bool(recovery.active_highwaters)


def _locked(folder: Path, name: str) -> int:
    """A lock on the folder, until the process ends."""
    try:
        descriptor = lock(folder / "lock")
    except OSError as error:
        raise SettingsInvalid(f"REC2PM_STATE_DIR: {folder} cannot be used: {error}") from error
    if descriptor is None:
        raise SettingsInvalid(f"--name={name}: a live view has this name and uses {folder}; each view needs its own")
    return descriptor


def _described(settings: Settings, needed: Iterable[Right]) -> TopicDescription:
    topic = settings.recommendations_topic
    admin = admin_client(settings)
    if lacking := missing(admin, needed):
        raise KafkaUnusable("\n".join(right.line() for right in lacking))
    try:
        described: TopicDescription = admin.describe_topics(
            TopicCollection([topic]), request_timeout=_ANSWERS_WITHIN_S
        )[topic].result()
    except KafkaException as error:
        if error.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
            raise
        raise TopicsUnusable(f"topic {topic} is missing: run `rec2pm topics create`") from error
    return described


def _credentials(kafka: Mapping[str, str]) -> Any:
    """Faust's credentials for librdkafka's options: TLS, and SASL with a user name and a password."""
    protocol = kafka.get("security.protocol", "plaintext").lower()
    tls = _tls(kafka) if protocol in ("ssl", "sasl_ssl") else None
    if protocol in ("sasl_plaintext", "sasl_ssl"):
        mechanism = kafka.get("sasl.mechanism") or kafka.get("sasl.mechanisms", "GSSAPI")
        if mechanism not in ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"):
            raise SettingsInvalid(
                f"the view does not support sasl.mechanism={mechanism}: expected PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512"
            )
        return faust.SASLCredentials(
            username=kafka.get("sasl.username"),
            password=kafka.get("sasl.password"),
            mechanism=mechanism,
            ssl_context=tls,
        )
    return None if tls is None else faust.SSLCredentials(tls)


_TLS_OPTIONS: Final = frozenset({"ssl.ca.location", "ssl.certificate.location", "ssl.key.location", "ssl.key.password"})


def _tls(kafka: Mapping[str, str]) -> ssl.SSLContext:
    """Python's TLS for librdkafka's options. Raises SettingsInvalid for an option that it cannot follow."""
    other = sorted(name for name in kafka if name.startswith(("ssl.", "enable.ssl.")) and name not in _TLS_OPTIONS)
    if other:
        raise SettingsInvalid(
            f"the view does not support {', '.join(other)}: it knows {', '.join(sorted(_TLS_OPTIONS))}"
        )
    place = kafka.get("ssl.ca.location")
    if place == "probe":  # the system's own, which is Python's default
        place = None
    try:
        folder = place is not None and Path(place).is_dir()
        tls = ssl.create_default_context(cafile=None if folder else place, capath=place if folder else None)
        if "ssl.certificate.location" in kafka:
            tls.load_cert_chain(
                kafka["ssl.certificate.location"], kafka.get("ssl.key.location"), kafka.get("ssl.key.password")
            )
    except OSError as error:  # ssl.SSLError is one
        raise SettingsInvalid(
            f"the view cannot use the files of REC2PM_KAFKA_SSL_CA_LOCATION, REC2PM_KAFKA_SSL_CERTIFICATE_LOCATION and "
            f"REC2PM_KAFKA_SSL_KEY_LOCATION: {error}"
        ) from error
    return tls
