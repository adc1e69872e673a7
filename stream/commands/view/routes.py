"""What the view answers over HTTP: lists, what is remembered, the streams of both, and a page that shows them."""

import asyncio
import logging
import math
import time
from collections.abc import AsyncGenerator, Sequence
from typing import Any, Final

import msgspec
from aiohttp import web

from model.ids import MAX_ID_BYTES
from state.errors import StateError
from stream.commands.view import answers, page
from stream.commands.view.answers import Streams, as_json, event
from stream.commands.view.faust_app import LatestLists
from stream.commands.view.openapi import description
from stream.commands.view.remembered import Remembered
from stream.commands.view.states import States
from stream.commands.view.titles import Titles
from stream.commands.view.workers import Fleet

logger = logging.getLogger(__name__)

SAYS_UNREADABLE_EVERY_S: Final = 60.0
_WHOLE_WITHIN_S: Final = 2.0
_LOOKS_AGAIN_S: Final = 0.05
STATES_EVERY_S: Final = 0.1
"""A stream of states has at most one in this time; the newest."""
_NO_USERS: Final = "this view does not follow what is remembered: start it with --users"
_NOT_READY: Final = "not ready: still reading the topic"


class Routes:
    """The HTTP handlers; they read the tables and nothing else."""

    def __init__(
        self,
        lists: LatestLists,
        states: States | None = None,
        fleet: Fleet | None = None,
        titles: Titles | None = None,
        *,
        application: str = "",
        wants_token: bool = False,
    ) -> None:
        """Args:
        states, fleet: what `--users` adds.
        """
        self._lists, self._states, self._fleet, self._titles = lists, states, fleet, titles
        self._about: Final = {
            "application": application,
            "users": states is not None,
            "titles": titles is not None,
            "token": wants_token,
        }
        self._streams: Final = Streams()
        self._unreadable_said_at = -math.inf

    def application(self, middlewares: Sequence[Any] = ()) -> web.Application:
        routes = web.Application(middlewares=[*middlewares, _user_ids_fit])
        # aiohttp's own pattern of a part of a path has no braces, and ids may have them.
        routes.add_routes(
            [
                *page.routes(),
                web.get("/ready", self._ready),
                web.get("/about", self._tell_about),
                web.get("/openapi.json", self._describe),
                web.get("/recommendations/{user:[^/]+}", self._get_list),
                web.get("/recommendations/{user:[^/]+}/stream", self._stream_lists),
                web.get("/users", self._get_active),
                web.get("/users/{user:[^/]+}", self._get_user),
                web.get("/users/{user:[^/]+}/stream", self._stream_user),
                web.get("/workers", self._get_workers),
            ]
        )
        return routes

    @property
    def _is_ready(self) -> bool:
        return self._lists.ready.is_set() and (self._states is None or self._states.ready.is_set())

    async def _ready(self, _: web.Request) -> web.Response:
        return as_json({"ready": self._is_ready}, 200 if self._is_ready else 503)

    async def _tell_about(self, _: web.Request) -> web.Response:
        return as_json(self._about)

    async def _describe(self, _: web.Request) -> web.Response:
        return as_json(description(users=self._states is not None, token=bool(self._about["token"])))

    async def _get_list(self, request: web.Request) -> web.Response:
        if not self._is_ready:
            return as_json({"error": _NOT_READY}, 503)
        user = request.match_info["user"]
        found = self._list(user)
        if found is None:
            return as_json({"error": "no recommendations for this user", "user": user}, 404)
        return as_json(found)

    async def _stream_lists(self, request: web.Request) -> web.StreamResponse:
        """The present list, then each new one; a reader that is too slow for all of them gets the newest."""
        user = request.match_info["user"]
        if not self._is_ready or self._key(user) is None:
            return await self._get_list(request)
        return await self._streams.answer(request, self._lists_of(user))

    async def _lists_of(self, user: str) -> AsyncGenerator[bytes, None]:
        key = self._key(user)
        assert key is not None
        with self._lists.watched(key) as newest:
            yield self._list_event(user, self._lists.newest(key))
            while True:
                try:
                    async with asyncio.timeout(answers.HEARTBEAT_S):
                        value = await newest.get()
                except TimeoutError:
                    yield b": heartbeat\n\n"
                else:
                    yield self._list_event(user, value)

    async def _get_active(self, _: web.Request) -> web.Response:
        if self._states is None:
            return as_json({"error": _NO_USERS}, 404)
        return as_json({"active": self._states.active()})

    async def _get_workers(self, _: web.Request) -> web.Response:
        if self._states is None or self._fleet is None:
            return as_json({"error": _NO_USERS}, 404)
        seen = self._fleet.seen(
            self._states.positions(), self._states.versions(), folds=self._states.folds, lists=self._lists.received
        )
        return as_json(seen)

    async def _get_user(self, request: web.Request) -> web.Response:
        if self._states is None:
            return as_json({"error": _NO_USERS}, 404)
        if not self._is_ready:
            return as_json({"error": _NOT_READY}, 503)
        user = request.match_info["user"]
        try:
            found = await self._state(self._states, user)
        except StateError as error:
            self._say_unreadable(f"state unreadable reason={error}")
            return as_json({"error": "the state of this user cannot be read, see the log of the view"}, 500)
        if found is None:
            return as_json({"error": "nothing is remembered about this user", "user": user}, 404)
        return as_json(self._with_list(found))

    async def _stream_user(self, request: web.Request) -> web.StreamResponse:
        """What is remembered and the list, now and after each change."""
        if self._states is None or not self._is_ready:
            return await self._get_user(request)
        return await self._streams.answer(request, self._user_events(self._states, request.match_info["user"]))

    async def _user_events(self, states: States, user: str) -> AsyncGenerator[bytes, None]:
        changed, key = asyncio.Event(), self._key(user)
        told_state: bytes | None = None
        told_list: bytes | None = None
        with states.watched(user, changed), self._lists.woken(key, changed):
            while True:
                changed.clear()
                try:
                    found = await self._state(states, user)
                except StateError as error:
                    self._say_unreadable(f"state unreadable reason={error}")
                    return
                state = event({"user": user} if found is None else self._titled(found), "state")
                made = self._list_event(user, None if key is None else self._lists.newest(key), "list")
                # The state comes first: a list is made from it.
                for new in [state] * (state != told_state) + [made] * (made != told_list):
                    yield new
                told_state, told_list = state, made
                await asyncio.sleep(STATES_EVERY_S)
                while not changed.is_set():
                    try:
                        async with asyncio.timeout(answers.HEARTBEAT_S):
                            await changed.wait()
                    except TimeoutError:
                        yield b": heartbeat\n\n"

    async def _state(self, states: States, user: str) -> Remembered | None:
        """What is remembered about a user. A step's records may be read in two pieces: between them a state is no
        state, and the second piece comes at once.
        """
        until = time.monotonic() + _WHOLE_WITHIN_S
        while True:
            try:
                return states.user(user)
            except StateError:
                if time.monotonic() > until:
                    raise
            await asyncio.sleep(_LOOKS_AGAIN_S)

    def _titled(self, found: Remembered) -> dict[str, Any]:
        told: dict[str, Any] = msgspec.to_builtins(found)
        if self._titles is not None:
            items = [*found.working_items, *(item for each in found.segments for item in each.items)]
            told["titles"] = self._titles.of(items)
        return told

    def _with_list(self, found: Remembered) -> dict[str, Any]:
        """A state, and what there is to know about the newest list without its items."""
        made = self._list(found.user)
        told = ("model", "source", "as_of", "taken", "folds")
        return {**self._titled(found), "list": None if made is None else {name: made.get(name) for name in told}}

    def _key(self, user: str) -> bytes | None:
        """The key of a user's lists; None if no key is this user, so that there can be no list."""
        try:
            return self._lists.key(user)
        except ValueError:
            return None

    def _list(self, user: str) -> dict[str, Any] | None:
        key = self._key(user)
        return None if key is None else self._told(user, self._lists.newest(key))

    def _list_event(self, user: str, value: bytes | None, name: str = "") -> bytes:
        found = self._told(user, value)
        return event({"user": user}, "none") if found is None else event(found, name)

    def _told(self, user: str, value: bytes | None) -> dict[str, Any] | None:
        """A list; None when it was withdrawn or cannot be read."""
        try:
            found = _decoded(value)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            self._say_unreadable(f"list unreadable bytes={len(value or b'')} reason={error}")
            return None
        if found is None:
            return None
        told = {"user": user, **found}
        if self._titles is not None:
            items = found.get("items")
            told["titles"] = self._titles.of(items if isinstance(items, list) else ())
        return told

    def _say_unreadable(self, what: str) -> None:
        """Log it now and then: who asks for the same again and again fills no log."""
        now = time.monotonic()
        if now - self._unreadable_said_at >= SAYS_UNREADABLE_EVERY_S:
            self._unreadable_said_at = now
            logger.warning("%s", what)


@web.middleware
async def _user_ids_fit(request: web.Request, handler: Any) -> Any:
    """No user has a longer id, so it is not looked for."""
    size = len(request.match_info.get("user", "x").encode(errors="surrogateescape"))
    if not 0 < size <= MAX_ID_BYTES:
        return as_json({"error": f"a user id has 1 to {MAX_ID_BYTES} bytes in UTF-8, this one has {size}"}, 400)
    return await handler(request)


def _decoded(value: bytes | None) -> dict[str, Any] | None:
    """A list, written as MessagePack or JSON; None when it was withdrawn."""
    if value is None:
        return None
    decode = msgspec.json.decode if value[:1] in (b"{", b" ", b"\t", b"\r", b"\n") else msgspec.msgpack.decode
    return decode(value, type=dict[str, Any])
