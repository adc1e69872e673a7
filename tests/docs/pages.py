"""The pages that people read, and the commands in them.

A command stands in a fenced block: `console` has `$ ` before each command and the output below it, `sh` has commands
alone. A command goes on after a line that ends in a backslash, and in `console` in lines that begin with `> `. A
comment right above a block says how it is treated:

    <!-- not run: REASON -->          the commands are parsed, never run
    <!-- output varies: REASON -->    the commands are run, the output is not compared
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parent.parent.parent
SHELLS: Final = ("console", "sh")
_BLOCK: Final = "\x00"
"""Stands for a block in the running text: what is above it says nothing of the next block."""
_FENCE: Final = re.compile(r"^( *)(`{3,}|~{3,})\s*(\S*)\s*(.*)$")
_COMMENT: Final = re.compile(r"<!--\s*(not run|output varies):\s*(.*?)\s*-->", re.DOTALL)
_TITLE: Final = re.compile(r'title="([^"]+)"')
_SPAN: Final = re.compile(r"(?<!`)`([^`\n]+(?:\n[^`\n]+)?)`(?!`)")


@dataclass(frozen=True, slots=True)
class Command:
    """A command as it is typed, and the output that its page shows."""

    line: int
    text: str
    output: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block. `marks` has what the comment above it says, by its first words."""

    line: int
    language: str
    title: str | None
    lines: tuple[str, ...]
    marks: dict[str, str] = field(default_factory=dict)

    def commands(self) -> list[Command]:
        if self.language == "sh":
            return list(_joined(self.line, self.lines))
        return list(_typed(self.line, self.lines)) if self.language == "console" else []


@dataclass(frozen=True, slots=True)
class Page:
    """A page: its path in the repository, its blocks, and its text with the blocks left out."""

    name: str
    blocks: tuple[Block, ...]
    prose: str

    def is_followed(self) -> bool:
        """Whether there is a command that is not marked as one that is not run."""
        return any(block.commands() and "not run" not in block.marks for block in self.blocks)

    def spans(self) -> list[str]:
        """What stands between backquotes in the running text."""
        return [" ".join(span.split()) for span in _SPAN.findall(self.prose)]


def names() -> list[str]:
    """Every page that must hold today. Decisions and the changelog tell of the day on which they were written."""
    beside = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md", "deploy/README.md"]
    return beside + sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))


def page(name: str) -> Page:
    return parsed(name, (ROOT / name).read_text())


def parsed(name: str, text: str) -> Page:
    """A page from its text.

    Raises:
        ValueError: a block has no end, or a `console` block begins with output.
    """
    blocks: list[Block] = []
    prose: list[str] = []
    lines = iter(enumerate(text.splitlines(), start=1))
    for number, line in lines:
        fence = _FENCE.match(line)
        if not fence:
            prose.append(line)
            continue
        indent, mark, language, rest = fence.groups()
        inside: list[str] = []
        for _, each in lines:
            if each.strip() == mark:
                break
            inside.append(each.removeprefix(indent))
        else:
            raise ValueError(f"{name}:{number}: the block has no end")
        title = _TITLE.search(rest)
        blocks.append(Block(number, language, title and title[1], tuple(inside), _marks(prose)))
        prose.append(_BLOCK)
    return Page(name, tuple(blocks), "\n".join(prose))


def _marks(above: list[str]) -> dict[str, str]:
    """What the comments say that stand right above a block."""
    tail = "\n".join(above).rstrip()
    marks: dict[str, str] = {}
    while tail.endswith("-->") and (found := _COMMENT.fullmatch(tail[tail.rindex("<!--") :])):
        marks[found[1]] = found[2]
        tail = tail[: tail.rindex("<!--")].rstrip()
    return marks


def _typed(first: int, lines: tuple[str, ...]) -> Iterator[Command]:
    at, typed, output = first, "", []
    for number, line in enumerate(lines, start=first + 1):
        if line.startswith("$ "):
            if typed:
                yield Command(at, typed, tuple(output))
            at, typed, output = number, line[2:], []
        elif not typed:
            raise ValueError(f"line {number}: output before the first `$ `")
        elif not output and (line.startswith("> ") or typed.endswith("\\")):
            typed += "\n" + line.removeprefix("> ")
        else:
            output.append(line)
    if typed:
        yield Command(at, typed, tuple(output))


def _joined(first: int, lines: tuple[str, ...]) -> Iterator[Command]:
    """Lines as commands; one that ends in a backslash goes on in the next."""
    at, typed = first, ""
    for number, line in enumerate(lines, start=first + 1):
        at, typed = (at, f"{typed}\n{line}") if typed else (number, line)
        if not line.endswith("\\"):
            if typed.strip() and not typed.lstrip().startswith("#"):
                yield Command(at, typed)
            typed = ""
    if typed:
        yield Command(at, typed)
