"""The view: every user's newest list over HTTP, and a page that shows one as it changes.

The compacted recommendations topic is itself the changelog of a Faust table: nothing is written to Kafka, nothing is
stored there twice. Every process holds every user, in a consumer group of its own, so that neither its start nor its
death moves anything elsewhere. Only this file knows Faust, which is an extra; importing it without Faust says how to
install it.
"""

import asyncio
import fcntl
import logging
import os
import re
import signal
import ssl
import threading
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient, TopicDescription

from stream.errors import KafkaUnusable, SettingsInvalid, TopicsUnusable
from stream.settings import Settings

try:
    import faust
    from aiohttp import web
    from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread, Consumer
except ImportError as missing:
    raise SettingsInvalid(f"the view needs Faust ({missing}): pip install 'rec2pm[view]'") from missing

logger = logging.getLogger(__name__)

HEARTBEAT_S: Final = 15.0
STOPS_WITHIN_S: Final = 4.0
"""After a signal or a crash, whatever Faust and its threads still wait for: the process exits."""
_STREAMS_END_WITHIN_S: Final = 0.2
_ANSWERS_WITHIN_S: Final = 15.0
_LOOK_EVERY_S: Final = 0.2
_ROCKSDB: Final = {
    "block_cache_size": 8 << 20,
    "write_buffer_size": 4 << 20,
}  # per partition; Faust's own are 2 GiB and 64 MiB
_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,100}")


def run_view(settings: Settings, *, listen: str, name: str) -> None:
    """Serve until SIGTERM or SIGINT.

    Args:
        settings: the application's; its recommendations are served.
        listen: HOST:PORT for HTTP.
        name: of this process, its own among the application's views: part of its consumer group and its folder.

    Raises:
        SettingsInvalid: `listen`, `name` or a Kafka option cannot be used.
        TopicsUnusable: there is no recommendations topic.
        KafkaUnusable: reading it ended in a way that no waiting mends.
    """
    host, _, port = listen.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65_535:
        raise SettingsInvalid(f"--listen={listen}: expected HOST:PORT")
    if not _NAME.fullmatch(name):
        raise SettingsInvalid(f"--name={name}: expected 1 to 100 of letters, digits, `.`, `_` and `-`")
    if not logger.isEnabledFor(logging.DEBUG):
        for library in ("faust", "mode", "aiokafka"):
            logging.getLogger(library).setLevel(logging.WARNING)
    asyncio.run(_serve(settings, host.strip("[]"), int(port), name))


async def _serve(settings: Settings, host: str, port: int, name: str) -> None:
    began = time.monotonic()
    stop = asyncio.create_task(_signalled())
    view = View(settings, name)
    http = web.AppRunner(view.routes(), access_log=None, shutdown_timeout=_STREAMS_END_WITHIN_S)
    await http.setup()
    try:
        await web.TCPSite(http, host, port).start()
    except OSError as error:
        raise SettingsInvalid(f"--listen={host}:{port}: {error.strerror}") from error
    logger.info("view starts group=%s url=http://%s:%d/", view.app.conf.id, host, port)
    follow = asyncio.create_task(view.follow())
    ready = asyncio.create_task(view.ready.wait())
    await asyncio.wait({follow, ready, stop}, return_when=asyncio.FIRST_COMPLETED)
    if ready.done():
        logger.info("view ready seconds=%.1f", time.monotonic() - began)
        await asyncio.wait({follow, stop}, return_when=asyncio.FIRST_COMPLETED)
    crashed = not stop.done()
    # There is nothing to lose: offsets are not committed, and the store is a copy of the topic that RocksDB's log
    # protects.
    limit = threading.Timer(STOPS_WITHIN_S, os._exit, (int(crashed),))
    limit.daemon = True
    limit.start()
    if crashed:
        logger.error("view crashed reason=%r", follow.exception() or view.app.crash_reason)
    await http.cleanup()
    await view.app.stop()
    if crashed:
        raise KafkaUnusable(f"reading {settings.recommendations_topic} ended, see the log above; start the view again")
    logger.info("view stopped")


async def _signalled() -> None:
    """Wait for SIGTERM or SIGINT."""
    signalled = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, signalled.set)
    await signalled.wait()


class View:
    """The table of newest lists, and the HTTP handlers that read it."""

    def __init__(self, settings: Settings, name: str) -> None:
        described = _described(settings)
        partitions = len(described.partitions)
        group = f"{settings.app}.view-{name}"
        folder = settings.state_dir.absolute() / group
        self._lock: Final = _held(folder, name)
        self.ready: Final = asyncio.Event()
        self._watchers: Final[defaultdict[bytes, set[asyncio.Queue[bytes | None]]]] = defaultdict(set)
        self.app: Final = faust.App(
            group,
            broker="kafka://" + settings.bootstrap_servers.replace(",", ";"),
            broker_credentials=_credentials(settings.kafka),
            # A killed predecessor stays in the group for so long, and the join waits for it.
            broker_session_timeout=6.0,
            broker_heartbeat_interval=1.0,
            consumer_auto_offset_reset="earliest",
            store="rocksdb://",
            # The id: what is stored of a topic must never be taken for a copy of another one of the same name.
            datadir=folder / f"{str(described.topic_id).replace('/', '_')}-{partitions}",  # it is base64
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
        # Faust's own queue is cleared at the end of a recovery, and with it what arrived since: lists that would be
        # missing for ever.
        self.app.tables._changelog_queue = self.app.FlowControlQueue(maxsize=self.app.conf.stream_buffer_maxsize)  # noqa: SLF001
        # Faust 0.15.3 assigns a global table's partitions by this name, which ignores `changelog_topic`: a KeyError
        # that it swallows, and a join that hangs without a message.
        self._table._changelog_topic_name = topic.get_topic_name  # noqa: SLF001

    async def follow(self) -> None:
        """Read the topic until Faust stops or crashes; `ready` is set when what was there at the start has been
        read.
        """
        await self.app.start()
        if self.app.tables.recovery.completed.is_set():
            self.ready.set()
        await self.app.wait_until_stopped()

    async def _on_change(self, event: Any) -> None:
        """Called by Faust for each record, just before the table has it."""
        for newest in self._watchers.get(event.message.key, ()):
            if newest.full():
                newest.get_nowait()
            newest.put_nowait(event.message.value)

    def routes(self) -> web.Application:
        routes = web.Application()
        user = "/recommendations/{user}"
        routes.add_routes(
            [
                web.get("/", _page),
                web.get("/ready", self._ready),
                web.get(user, self._get),
                web.get(f"{user}/stream", self._stream),
            ]
        )
        return routes

    async def _ready(self, _: web.Request) -> web.Response:
        return _json({"ready": self.ready.is_set()}, 200 if self.ready.is_set() else 503)

    async def _get(self, request: web.Request) -> web.Response:
        if not self.ready.is_set():
            return _json({"error": "not ready: still reading the topic"}, 503)
        user = request.match_info["user"]
        found = _decoded(self._table.get(user.encode()))
        return (
            _json({"error": "no recommendations for this user", "user": user}, 404)
            if found is None
            else _json({"user": user, **found})
        )

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        """Server-sent events: the list of now, then each new one; a reader that is too slow for all of them gets the
        newest.
        """
        if not self.ready.is_set():
            return await self._get(request)
        user = request.match_info["user"]
        key = user.encode()
        newest: asyncio.Queue[bytes | None] = asyncio.Queue(1)
        response = web.StreamResponse(
            headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        )
        self._watchers[key].add(newest)
        try:
            await response.prepare(request)
            await response.write(_event(user, self._table.get(key)))
            while True:
                try:
                    async with asyncio.timeout(HEARTBEAT_S):
                        event = _event(user, await newest.get())
                except TimeoutError:
                    event = b": heartbeat\n\n"
                await response.write(event)
        except ConnectionResetError:
            return response
        finally:
            self._watchers[key].discard(newest)
            if not self._watchers[key]:
                del self._watchers[key]


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


def _held(folder: Path, name: str) -> int:
    """A lock on the folder, until the process ends."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise SettingsInvalid(f"--name={name}: a live view has this name and holds {folder}") from None
    except OSError as error:
        raise SettingsInvalid(f"REC2PM_STATE_DIR: {folder} cannot be used: {error}") from error
    return lock


def _described(settings: Settings) -> TopicDescription:
    topic = settings.recommendations_topic
    admin = AdminClient(
        {"bootstrap.servers": settings.bootstrap_servers, **settings.kafka}, logger=logging.getLogger("rdkafka.admin")
    )
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
    tls = None
    if protocol in ("ssl", "sasl_ssl"):
        tls = ssl.create_default_context(cafile=kafka.get("ssl.ca.location"))
        if "ssl.certificate.location" in kafka:
            tls.load_cert_chain(
                kafka["ssl.certificate.location"], kafka.get("ssl.key.location"), kafka.get("ssl.key.password")
            )
    if protocol in ("sasl_plaintext", "sasl_ssl"):
        mechanism = kafka.get("sasl.mechanism") or kafka.get("sasl.mechanisms", "GSSAPI")
        if mechanism not in ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"):
            raise SettingsInvalid(
                f"the view knows no sasl.mechanism={mechanism}: expected PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512"
            )
        return faust.SASLCredentials(
            username=kafka.get("sasl.username"),
            password=kafka.get("sasl.password"),
            mechanism=mechanism,
            ssl_context=tls,
        )
    return None if tls is None else faust.SSLCredentials(tls)


def _decoded(value: bytes | None) -> dict[str, Any] | None:
    """A list, written as MessagePack or JSON; None when it was withdrawn or cannot be read."""
    if value is None:
        return None
    decode = msgspec.json.decode if value[:1] in (b"{", b" ", b"\t", b"\r", b"\n") else msgspec.msgpack.decode
    try:
        return decode(value, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        logger.warning("list unreadable bytes=%d reason=%s", len(value), error)
        return None


def _event(user: str, value: bytes | None) -> bytes:
    found = _decoded(value)
    if found is None:
        return b"event: none\ndata: " + msgspec.json.encode({"user": user}) + b"\n\n"
    return b"data: " + msgspec.json.encode({"user": user, **found}) + b"\n\n"


def _json(value: Mapping[str, Any], status: int = 200) -> web.Response:
    return web.Response(
        body=msgspec.json.encode(value),
        status=status,
        content_type="application/json",
        headers={"Cache-Control": "no-store"},
    )


async def _page(_: web.Request) -> web.Response:
    return web.Response(text=PAGE, content_type="text/html")


PAGE: Final = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>Recommendations</title>
<style>
 :root { color-scheme: light dark; --line: color-mix(in srgb, currentColor 15%, transparent) }
 body { font: 16px/1.5 system-ui, sans-serif; max-width: 44rem; margin: 3rem auto; padding: 0 1rem }
 h1 { font-size: 1.4rem } form { display: flex; gap: .5rem } input { flex: 1 } input, button { font: inherit; padding: .4rem .7rem }
 #said { min-height: 1.5rem; margin: 1rem 0 } dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1rem; margin: 1rem 0 }
 dt, .muted, th { opacity: .65; font-weight: normal } dd { margin: 0; overflow-wrap: anywhere }
 table { border-collapse: collapse; width: 100% } th, td { padding: .35rem .5rem; border-bottom: 1px solid var(--line); text-align: left }
 td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; width: 1% ; white-space: nowrap } td { overflow-wrap: anywhere }
</style>
<h1>Recommendations</h1>
<form><input name="user" placeholder="user id" aria-label="user id" autocomplete="off" autofocus required><button>Show</button></form>
<p id="said" class="muted" role="status">Type a user id to see the newest list and follow its changes.</p>
<div id="list"></div>
<script>
const said = document.getElementById("said"), list = document.getElementById("list"), form = document.forms[0];
let source, again;
const node = (tag, text, name = "") => Object.assign(document.createElement(tag), {textContent: text, className: name});
const row = cells => { const tr = node("tr", ""); tr.append(...cells); return tr; };
// An integer beyond 2^53 keeps its digits where the browser tells them.
const exact = (_, value, context) => Number.isInteger(value) && !Number.isSafeInteger(value) && context ? context.source : value;
function show(found) {
  const facts = node("dl", ""), table = node("table", "");
  const told = {source: found.source, model: found.model, "as of": new Date(found.as_of).toLocaleString(), interactions: found.taken};
  for (const [name, value] of Object.entries(told)) facts.append(node("dt", name), node("dd", value ?? "-"));
  table.append(row([node("th", "#", "n"), node("th", "item"), node("th", "score", "n")]));
  found.items.forEach((item, i) => {
    table.append(row([node("td", i + 1, "n"), node("td", item), node("td", found.scores[i]?.toFixed(4), "n")]));
  });
  list.replaceChildren(facts, table);
}
function follow(user) {
  source?.close(); clearTimeout(again); list.replaceChildren(); said.textContent = "Connecting ...";
  source = new EventSource("/recommendations/" + encodeURIComponent(user) + "/stream");
  source.onmessage = event => {
    show(JSON.parse(event.data, exact)); said.textContent = "Live. Received at " + new Date().toLocaleTimeString() + ".";
  };
  source.addEventListener("none", () => { list.replaceChildren(); said.textContent = "No list for this user yet. Waiting ..."; });
  source.onerror = () => {
    said.textContent = "Not connected, trying again ...";
    if (source.readyState === EventSource.CLOSED) again = setTimeout(follow, 2000, user);
  };
}
form.onsubmit = event => {
  event.preventDefault();
  const hash = "#" + encodeURIComponent(form.user.value);
  if (location.hash === hash) follow(form.user.value); else location.hash = hash;
};
onhashchange = () => { const user = decodeURIComponent(location.hash.slice(1)); if (user) { form.user.value = user; follow(user); } };
onhashchange();
</script>
</html>
"""
