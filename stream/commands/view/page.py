"""The web page: three files of this folder, and a policy that lets a browser load nothing else."""

from collections.abc import Awaitable, Callable
from importlib import resources
from typing import Final

from aiohttp import web

_FILES: Final = {
    "/": ("page.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
}
_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


def routes() -> list[web.RouteDef]:
    folder = resources.files(__package__)

    def served(name: str, kind: str) -> Callable[[web.Request], Awaitable[web.Response]]:
        text = (folder / name).read_text(encoding="utf-8")

        async def answer(_: web.Request) -> web.Response:
            return web.Response(text=text, content_type=kind, headers=_HEADERS)

        return answer

    return [web.get(path, served(*file)) for path, file in _FILES.items()]
