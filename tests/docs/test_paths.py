"""What the pages point to is there: files and modules of the repository, links, anchors. And their lines fit."""

import ast
import re
import unicodedata
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final

import pytest

from tests.docs.pages import parsed

ROOT: Final = Path(__file__).parents[2]
ROOMS: Final = ("bench", "deploy", "docs", "model", "state", "stream", "tests")
PAGES: Final = [
    *("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "deploy/README.md"),
    *(str(page.relative_to(ROOT)) for page in sorted((ROOT / "docs").rglob("*.md"))),
]
"""CHANGELOG.md is not among them: it says what things were called at the time."""
ELSEWHERE: Final = frozenset({"HoloMambaRec.py"})
"""Files of other projects."""
WIDTH: Final = 120

_FENCED: Final = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
_CODE: Final = re.compile(r"`([^`\n]+)`")
_IN_A_ROOM: Final = re.compile(rf"^(?:{'|'.join(ROOMS)})/[\w./*-]*")
_PYTHON_FILE: Final = re.compile(r"[\w./-]*\b\w+\.py\b")
_RUN: Final = re.compile(rf"python -m ((?:{'|'.join(ROOMS)})(?:\.\w+)*)")
_MEMBER: Final = re.compile(r"^([A-Z]\w+)\.(\w+)$")
_LINK: Final = re.compile(r"\[(?:[^\[\]]|\[[^\]]*\])*\]\(([^)\s]+)\)")


def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


@cache
def python_files() -> frozenset[str]:
    """The names of all modules."""
    return frozenset(path.name for room in ROOMS for path in (ROOT / room).rglob("*.py"))


@cache
def members() -> dict[str, set[str]]:
    """Class → what is defined in it, of all classes of the repository."""
    found: dict[str, set[str]] = {}
    for room in ROOMS:
        for path in (ROOT / room).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.ClassDef):
                    inside = list(ast.walk(node))
                    names = {each.name for each in inside if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)}
                    names |= {each.id for each in inside if isinstance(each, ast.Name)}
                    names |= {each.attr for each in inside if isinstance(each, ast.Attribute)}
                    found.setdefault(node.name, set()).update(names)
    return found


def missing_paths(page: str) -> Iterator[str]:
    text = text_of(page)
    for code in _CODE.findall(_FENCED.sub("", text)):
        for word in code.split():
            if (found := _IN_A_ROOM.match(word)) and not list(ROOT.glob(found[0].rstrip("./"))):
                yield word
        if (member := _MEMBER.match(code)) and member[1] in members() and member[2] not in members()[member[1]]:
            yield code
    written_by_the_reader = set(re.findall(r'^```python title="(.*)"$', text, re.MULTILINE))
    for word in _PYTHON_FILE.findall(text):
        # A bare name may stand in any room: a map and a table of tests name files below a folder.
        if word.rpartition("/")[2] not in python_files() | ELSEWHERE | written_by_the_reader:
            yield word
    for module in _RUN.findall(text):
        place = ROOT / module.replace(".", "/")
        if not place.with_suffix(".py").is_file() and not (place / "__main__.py").is_file():
            yield f"python -m {module}"


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings that GitHub and MkDocs agree on."""
    titles = re.findall(r"^#+ +(.+)$", _FENCED.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    plain = [re.sub(r"`|\*|\[|\]\([^)]*\)", "", title) for title in titles]
    github = {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in plain}
    ascii_only = [unicodedata.normalize("NFKD", title).encode("ascii", "ignore").decode() for title in plain]
    mkdocs = {re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", title).strip().lower()) for title in ascii_only}
    return github & mkdocs


def broken_links(page: str) -> Iterator[str]:
    for link in _LINK.findall(_CODE.sub("", _FENCED.sub("", text_of(page)))):
        if re.match(r"[a-z]+:", link):
            continue
        target, _, anchor = link.partition("#")
        path = (ROOT / page).parent / target if target else ROOT / page
        if not path.exists() or (anchor and anchor not in anchors(path)):
            yield link


@pytest.mark.parametrize("page", PAGES)
def test_every_path_that_a_page_names_exists(page: str) -> None:
    assert not list(missing_paths(page))


@pytest.mark.parametrize("page", PAGES)
def test_every_link_of_a_page_leads_somewhere(page: str) -> None:
    assert not list(broken_links(page))


@pytest.mark.parametrize("page", PAGES)
def test_the_lines_of_a_page_fit(page: str) -> None:
    """Tables and what programs print excepted, and lines that are one link or one piece of code."""
    printed = {
        line for block in parsed(page, text_of(page)).blocks for each in block.commands() for line in each.output
    }
    long = [
        line
        for line in text_of(page).splitlines()
        if len(line) > WIDTH
        and not line.lstrip().startswith("|")
        and " " in line.strip()
        and "http" not in line
        and line not in printed
    ]
    assert not long
