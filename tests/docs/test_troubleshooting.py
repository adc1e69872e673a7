"""docs/troubleshooting.md quotes messages that exist, and has an entry for each that a user can see.

A quote is the code in a heading of the third level, or in a paragraph that starts with `Also:`. `…` in it stands for
whatever the program fills in.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
PAGE: Final = ROOT / "docs" / "troubleshooting.md"
PACKAGES: Final = ("stream", "state", "model")
SAID_BY_OTHERS: Final = frozenset(
    {"ClickException", "UsageError", "BadParameter", "BrokerNotFound", "_error", "_warning"}
)
"""Calls that make a message, beside the errors of the project and the log; the last two are the topics' problems."""
_LETTERS: Final = re.compile(r"[A-Za-z]{3}")


def quotes() -> list[str]:
    text = PAGE.read_text(encoding="utf-8")
    lines = re.findall(r"^### (`.*`)$", text, re.MULTILINE) + re.findall(r"^Also: .*(?:\n.+)*", text, re.MULTILINE)
    return [quote.replace("\n", " ") for line in lines for quote in re.findall(r"`([^`]+)`", line)]


def as_pattern(quote: str) -> re.Pattern[str]:
    return re.compile(".*".join(re.escape(part.strip()) for part in quote.split("…")), re.DOTALL)


def sources() -> Iterator[tuple[Path, ast.Module]]:
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            yield path.relative_to(ROOT), ast.parse(path.read_text(encoding="utf-8"))


def written(node: ast.expr) -> str | None:
    """A string of the source, with `…` for what is filled in; None for another expression."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=values):
            return "".join(part.value if isinstance(part, ast.Constant) else "…" for part in values)
        case ast.BinOp(op=ast.Add(), left=left, right=right):
            return (written(left) or "…") + (written(right) or "…")
    return None


def strings() -> set[str]:
    """Every string of the source, but for docstrings."""
    found = set()
    for _, tree in sources():
        explained = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if isinstance(node, ast.expr) and id(node) not in explained and (text := written(node)) is not None:
                found.add(text)
    return found


def errors() -> set[str]:
    return {
        node.name
        for path, tree in sources()
        if path.name == "errors.py"
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
    }


def messages() -> Iterator[tuple[str, str]]:
    """Where a message is made, and the message, of errors, warnings and problems."""
    makers = errors() | SAID_BY_OTHERS
    for path, tree in sources():
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call):
                continue
            match node.func:
                case ast.Name(id=name) | ast.Attribute(attr=name) if name in makers:
                    pass
                case ast.Attribute(value=ast.Name(id="logger"), attr="warning" | "error"):
                    pass
                case _:
                    continue
            for argument in node.args:
                if (text := written(argument)) is not None and _LETTERS.search(text.replace("%s", "")):
                    yield f"{path}:{node.lineno}", text


def test_every_quoted_message_is_in_the_source() -> None:
    known = strings()
    gone = [quote for quote in quotes() if not any(as_pattern(quote).search(text) for text in known)]
    assert not gone, f"no message has these words any more; correct {PAGE.name}: {gone}"


def test_every_message_has_an_entry() -> None:
    patterns = [as_pattern(quote) for quote in quotes()]
    new = {message: where for where, message in messages() if not any(pattern.search(message) for pattern in patterns)}
    assert not new, f"{PAGE.name} has no entry for these messages: {new}"
