"""The process of `rec2pm view`: HTTP and Faust in one event loop, until a signal or a crash ends both.

Faust and aiohttp are an extra; importing this file without them says how to install them.
"""

import asyncio
import logging
import os
import re
import signal
import threading
import time
from pathlib import Path
from typing import Final

from model.errors import how_to_install
from stream.errors import KafkaUnusable, SettingsInvalid
from stream.kafka.rights import of_view, of_view_users
from stream.settings import Settings
from stream.stop_signals import EXIT_INTERRUPTED

try:
    from aiohttp import web

    from stream.commands.view import token
    from stream.commands.view.connections import LIMITS, Connections, logger_of_server
    from stream.commands.view.faust_app import LatestLists
    from stream.commands.view.outage import kafka_answers, quiet_libraries, watch
    from stream.commands.view.routes import Routes
    from stream.commands.view.states import States
    from stream.commands.view.titles import Titles, read_titles
    from stream.commands.view.workers import Fleet
except ImportError as missing:
    raise SettingsInvalid(f"the view needs Faust ({missing}): {how_to_install('view')}") from missing

logger = logging.getLogger(__name__)

STOPS_WITHIN_S: Final = 4.0
"""After a signal or a crash the process exits, even if Faust and its threads still wait for something."""
_STREAMS_END_WITHIN_S: Final = 0.2
_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,100}")


def run_view(settings: Settings, *, listen: str, name: str, users: bool = False, items: Path | None = None) -> None:
    """Serve until SIGTERM or SIGINT.

    Args:
        settings: the application's; its recommendations are served.
        listen: HOST:PORT for HTTP.
        name: of this process, its own among the application's views: part of its consumer group and its folder.
        users: serve what is remembered about users as well, from a copy of the changelog.
        items: a file with titles of items.

    Raises:
        SettingsInvalid: `listen`, `name`, `items`, the token or a Kafka option cannot be used.
        TopicsUnusable: there is no recommendations topic, or no changelog.
        KafkaUnusable: reading the topic failed, and waiting would not help.
        KeyboardInterrupt: SIGINT stopped the view, as cleanly as SIGTERM does.
    """
    host, _, port = listen.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65_535:
        raise SettingsInvalid(f"--listen={listen}: expected HOST:PORT")
    if not _NAME.fullmatch(name):
        raise SettingsInvalid(f"--name={name}: expected 1 to 100 of letters, digits, `.`, `_` and `-`")
    titles = None if items is None else read_titles(items)
    secret = None if settings.view_token is None else token.checked(settings.view_token.get_secret_value())
    if not logger.isEnabledFor(logging.DEBUG):
        quiet_libraries()
    if asyncio.run(_serve(settings, host.strip("[]"), int(port), name, users, titles, secret)) == signal.SIGINT:
        raise KeyboardInterrupt


async def _serve(
    settings: Settings, host: str, port: int, name: str, users: bool, titles: Titles | None, secret: bytes | None
) -> int:
    """Returns the signal that stopped it."""
    began = time.monotonic()
    stop = asyncio.create_task(_signalled())
    lists = LatestLists(settings, name, (of_view_users if users else of_view)(settings.names, name))
    states = States(settings, lists.folder / "users", _wall_ms) if users else None
    fleet = Fleet(settings, lists.partitions, _wall_ms) if users else None
    connections = Connections()
    routes = Routes(lists, states, fleet, titles, application=settings.app, wants_token=secret is not None)
    http = web.AppRunner(
        routes.application([connections.middleware, *([] if secret is None else [token.required(secret)])]),
        access_log=None,
        shutdown_timeout=_STREAMS_END_WITHIN_S,
        logger=logger_of_server(),
        **LIMITS,
    )
    await http.setup()
    assert http.server is not None
    try:
        listening = await connections.listen(http.server, host, port)
    except OSError as error:
        raise SettingsInvalid(f"--listen={host}:{port}: {error.strerror}") from error
    logger.info("view starts group=%s url=http://%s:%d/", lists.app.conf.id, host, port)
    follow = {asyncio.create_task(each.follow()) for each in (lists, states, fleet) if each is not None}
    outages = asyncio.create_task(watch(kafka_answers(settings)))
    ready = asyncio.create_task(_all_ready(lists, states))
    await asyncio.wait({*follow, ready, stop}, return_when=asyncio.FIRST_COMPLETED)
    if ready.done():
        logger.info("view ready seconds=%.1f", time.monotonic() - began)
        await asyncio.wait({*follow, stop}, return_when=asyncio.FIRST_COMPLETED)
    crashed = not stop.done()
    # Nothing can be lost: offsets are not committed, and the store is a copy of the topic that RocksDB's log protects.
    code = 1 if crashed else EXIT_INTERRUPTED if stop.result() == signal.SIGINT else 0
    limit = threading.Timer(STOPS_WITHIN_S, os._exit, (code,))
    limit.daemon = True
    limit.start()
    if crashed:
        why = next((each.exception() for each in follow if each.done() and each.exception()), None)
        logger.error("view crashed reason=%r", why or lists.app.crash_reason)
    outages.cancel()
    listening.close()
    await http.cleanup()
    for each in (states, fleet):
        if each is not None:
            each.close()
    await lists.app.stop()
    await asyncio.wait(follow)
    if crashed:
        raise KafkaUnusable("reading from Kafka failed, see the log above; start the view again")
    logger.info("view stopped")
    return stop.result()


async def _all_ready(lists: LatestLists, states: States | None) -> None:
    await lists.ready.wait()
    if states is not None:
        await states.ready.wait()


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000


async def _signalled() -> int:
    """Wait for SIGTERM or SIGINT; returns which of them came first."""
    signals: asyncio.Queue[int] = asyncio.Queue()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, signals.put_nowait, number)
    return await signals.get()
