"""An optional bearer token: who does not send it is told nothing."""

import hmac
import re
from collections.abc import Callable
from typing import Any, Final

import msgspec
from aiohttp import web

from stream.errors import SettingsInvalid

MIN_LENGTH: Final = 16
_TOKEN: Final = re.compile(rf"[A-Za-z0-9._~+/-]{{{MIN_LENGTH},1000}}=*")
OPEN: Final = frozenset({"/", "/page.css", "/page.js", "/ready", "/about", "/openapi.json"})
"""Paths that tell nothing about users."""


def checked(token: str) -> bytes:
    """Raises SettingsInvalid if a client could not send it, or it is easy to guess. The message does not have it."""
    if not _TOKEN.fullmatch(token):
        raise SettingsInvalid(
            f"REC2PM_VIEW_TOKEN: expected {MIN_LENGTH} to 1000 letters, digits and `-._~+/`, as `openssl rand -hex 32` prints"
        )
    return token.encode()


def required(token: bytes) -> Callable[..., Any]:
    """A middleware that answers 401 to who does not send the token. The comparison takes the same time for each."""

    @web.middleware
    async def asked(request: web.Request, handler: Any) -> Any:
        if request.path in OPEN:
            return await handler(request)
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        right = hmac.compare_digest(given.strip().encode(errors="surrogateescape"), token)
        if scheme.lower() == "bearer" and right:
            return await handler(request)
        return web.Response(
            body=msgspec.json.encode({"error": "this view wants `Authorization: Bearer TOKEN`"}) + b"\n",
            status=401,
            content_type="application/json",
            headers={"WWW-Authenticate": "Bearer", "Cache-Control": "no-store"},
        )

    return asked
