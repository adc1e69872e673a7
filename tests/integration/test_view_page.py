"""The page in a real browser beside a real worker: one user through a fold and a swap of the model."""

import asyncio
from contextlib import ExitStack
from pathlib import Path

import pytest

pytest.importorskip("faust", reason="the extra `view` is not installed")

from model.version.registry import Registry
from stream.testing.process import Worker
from tests import chromium
from tests.integration.test_broker import until
from tests.integration.test_view_users import ITEMS, SEGMENT, View, acts, models, running, worker
from tests.promoting import promote

__all__ = ["models", "running", "worker"]

pytestmark = pytest.mark.skipif(chromium.found() is None, reason=f"no browser: none of {', '.join(chromium.NAMES)}")

MOVED = (
    "[...document.querySelectorAll('#list li')].map(row => [row.dataset.item, row.querySelector('.moved').dataset.way])"
)
CELLS = "[...document.querySelectorAll('#slots li.full')].map(cell => cell.textContent)"


def test_a_user_is_followed_through_a_fold_and_a_swap(
    worker: Worker, running: ExitStack, bootstrap: str, app: str, models: str, tmp_path: Path
) -> None:
    titles = tmp_path / "items.csv"
    titles.write_text("item_id,title\n" + "".join(f"{item},The {item} <b>\n" for item in ITEMS))
    acts(worker, "ann", 0, 2)
    worker.wait_until_taken()
    view = View(running, worker, "--users", "--items", str(titles))
    asyncio.run(_followed(view, worker, lambda: promote(bootstrap, app, Registry(models).resolve("second@1"))))


async def _followed(view: View, worker: Worker, promotes) -> None:  # type: ignore[no-untyped-def]
    async with chromium.opened(f"http://127.0.0.1:{view.port}/") as page:
        # Chosen with the keyboard from those who are active.
        await page.until("document.querySelector('#active button')?.textContent === 'ann'")
        await page.run("document.getElementById('user').focus()")
        for _ in range(2):
            await page.key("Tab")
        await page.key("Enter")
        await page.until(f"({CELLS}).length === 2 && document.querySelectorAll('#list li').length === 10")
        assert await page.run(CELLS) == ["The item-0 <b>", "The item-1 <b>"], "a title is text, not markup"
        assert await page.run("location.hash") == "#ann"
        assert await page.run("document.querySelectorAll('#slots li').length") == SEGMENT

        # Interactions arrive, the working memory fills, and the list says what moved.
        before = dict(await page.run(MOVED))
        await asyncio.to_thread(acts, worker, "ann", 2, 4)
        await page.until(f"({CELLS}).length === 4 && document.getElementById('list').dataset.taken === '4'")
        moved = await page.run(MOVED)
        listed = view.get("/recommendations/ann")[1]["items"]
        assert [item for item, _ in moved] == listed
        for item, way in moved:
            assert (way == "new") <= (item not in before) or way in ("up", "down", "")
        assert any(way for _, way in moved)

        # The fold.
        await asyncio.to_thread(acts, worker, "ann", 4, 6)
        await page.until(f"({CELLS}).length === 1 && document.querySelector('#log .fold') !== null")
        assert await page.run("document.getElementById('folded').textContent") == "1 segment folded"
        assert "item-0" in await page.run("document.querySelector('#segments p').textContent")
        await page.until("document.getElementById('said').textContent.includes('folded')")

        # The swap.
        promotes()
        await asyncio.to_thread(
            until,
            lambda: view.get("/workers")[1]["workers"][0]["serves"] == "second@1",
            90,
            "the worker has the version",
        )
        await asyncio.to_thread(acts, worker, "ann", 6, 7)
        await page.until("document.getElementById('list').dataset.model === 'second@1'")
        assert await page.run("document.querySelector('#log .swap').textContent.includes('second@1')")
        await page.until("document.getElementById('workers').textContent.includes('second@1')")
        await page.until("document.getElementById('champion').textContent.includes('second@1')")

        # What a page owes to everybody.
        await page.show(width=390, height=844, scheme="dark")
        assert await page.run("document.documentElement.scrollWidth") <= 390
        assert await page.run(
            "[...document.querySelectorAll('input, button')].every(each => each.labels?.length || each.textContent)"
        )
        assert await page.run("getComputedStyle(document.body).backgroundColor") != "rgb(246, 246, 243)", "dark"
        assert page.complaints == [], "neither an error, nor anything that its policy forbids"
