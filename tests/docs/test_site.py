"""The documentation site: every link and anchor leads somewhere, and every page is in the navigation."""

import re
from itertools import pairwise
from pathlib import Path

import pytest
from mkdocs.commands.build import build
from mkdocs.config import load_config

from tests.docs import pages
from tests.docs.pages import ROOT

LIST = re.compile(r" {0,3}([-*]|\d+\.) ")


def test_the_site_has_no_broken_link_and_every_page(tmp_path: Path) -> None:
    config = load_config(str(ROOT / "mkdocs.yml"), site_dir=str(tmp_path))
    config.plugins.on_startup(command="build", dirty=False)

    build(config)  # it raises Abort where there was a warning

    assert [name for name in pages.names() if not (tmp_path / address(name)).is_file()] == []
    assert (
        re.findall(r'(?:src|href)="(https?://[^"]+\.(?:js|css|woff2?)[^"]*)"', (tmp_path / "index.html").read_text())
        == []
    )


def address(name: str) -> str:
    """Where a page is on the site."""
    short = name.removeprefix("docs/").removesuffix(".md")
    folder = "" if short == "README" else short.removesuffix("README")
    return f"{folder.rstrip('/')}/index.html".lstrip("/")


@pytest.mark.parametrize("name", pages.names())
def test_lists_have_a_line_before_them(name: str) -> None:
    """Code hosts show a list without one; on the site it would be a part of the paragraph above."""
    lines = pages.page(name).prose.splitlines()
    joined = [
        line
        for above, line in pairwise(lines)
        if LIST.match(line) and above.strip() and not LIST.match(above) and not above.startswith(" ")
    ]

    assert joined == []


def test_the_readme_is_one_page() -> None:
    lines = (ROOT / "README.md").read_text().splitlines()

    assert len(lines) <= 100
