"""A page in a real Chromium without a window, over its DevTools protocol."""

import asyncio
import base64
import itertools
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import aiohttp
import psutil

NAMES: Final = ("chromium", "chromium-browser", "google-chrome")
_STARTS_WITHIN_S: Final = 60.0
_LOOK_EVERY_S: Final = 0.05


def found() -> str | None:
    """The path of a Chromium; None if this machine has none."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Page:
    """One page. Its errors and what its policy forbids are collected in `complaints`."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket, self._ids = socket, itertools.count(1)
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self.complaints: list[str] = []
        self._listening = asyncio.create_task(self._listen())

    async def _listen(self) -> None:
        async for message in self._socket:
            told = json.loads(message.data)
            if (waiting := self._answers.pop(told.get("id"), None)) is not None:
                waiting.set_result(told)
            elif told.get("method") == "Runtime.exceptionThrown":
                details = told["params"]["exceptionDetails"]
                self.complaints.append(details.get("exception", {}).get("description") or details["text"])
            elif told.get("method") == "Log.entryAdded" and told["params"]["entry"]["level"] == "error":
                self.complaints.append(f"{told['params']['entry']['text']} {told['params']['entry'].get('url', '')}")

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        number = next(self._ids)
        self._answers[number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": number, "method": method, "params": params})
        async with asyncio.timeout(_STARTS_WITHIN_S):
            told = await self._answers[number]
        assert "error" not in told, (method, told)
        return told["result"]  # type: ignore[no-any-return]

    async def run(self, script: str) -> Any:
        """The value of an expression in the page; a promise is waited for."""
        told = await self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in told, (script, told["exceptionDetails"])
        return told["result"].get("value")

    async def until(self, script: str, within_s: float = 60.0) -> Any:
        """Wait until an expression is true; returns its value."""
        try:
            async with asyncio.timeout(within_s):
                while not (value := await self.run(script)):
                    await asyncio.sleep(_LOOK_EVERY_S)
        except TimeoutError:
            text = await self.run("document.body.innerText")
            raise AssertionError(f"not within {within_s} s: {script}\n{text}\n{self.complaints}") from None
        return value

    async def key(self, name: str) -> None:
        """Press a key, such as Tab or Enter."""
        code = {"Tab": 9, "Enter": 13}[name]
        more = {"text": "\r"} if name == "Enter" else {}
        for kind in ("keyDown", "keyUp"):
            await self.call(
                "Input.dispatchKeyEvent", type=kind, key=name, code=name, windowsVirtualKeyCode=code, **more
            )

    async def show(self, *, width: int, height: int, scheme: str = "light") -> None:
        await self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 500
        )
        # Without motion, so that what is seen does not depend on the moment.
        seen = {"prefers-color-scheme": scheme, "prefers-reduced-motion": "reduce"}
        await self.call("Emulation.setEmulatedMedia", features=[{"name": name, "value": seen[name]} for name in seen])

    async def picture(self, path: Path) -> None:
        """A PNG of what is to be seen."""
        told = await self.call("Page.captureScreenshot", format="png")
        path.write_bytes(base64.b64decode(told["data"]))


@asynccontextmanager
async def opened(url: str, *, width: int = 1280, height: int = 900) -> AsyncIterator[Page]:
    """A page at this address; its browser ends with the block."""
    browser = found()
    assert browser is not None
    with tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True) as profile:
        process = subprocess.Popen(
            [
                browser,
                "--headless=new",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--no-first-run",
                "--remote-debugging-port=0",
                f"--user-data-dir={profile}",
                "about:blank",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "HOME": profile},
        )
        try:
            port = await _port(Path(profile) / "DevToolsActivePort")
            async with aiohttp.ClientSession() as session:
                async with session.get(f"http://127.0.0.1:{port}/json/list") as answer:
                    target = next(each for each in await answer.json() if each["type"] == "page")
                async with session.ws_connect(target["webSocketDebuggerUrl"], max_msg_size=0) as socket:
                    page = Page(socket)
                    for domain in ("Page", "Runtime", "Log"):
                        await page.call(f"{domain}.enable")
                    await page.show(width=width, height=height)
                    await page.call("Page.navigate", url=url)
                    yield page
        finally:
            children = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
            process.terminate()
            process.wait(20)
            for child in children:
                if child.is_running():
                    child.kill()


async def _port(file: Path) -> int:
    async with asyncio.timeout(_STARTS_WITHIN_S):
        while not file.exists() or not (lines := file.read_text().split()):
            await asyncio.sleep(_LOOK_EVERY_S)
    return int(lines[0])
