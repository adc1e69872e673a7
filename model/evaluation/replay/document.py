"""A report as blocks, which become Markdown or a page. Text has `code` and **bold**, nothing else."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from model.evaluation import markdown


@dataclass(frozen=True, slots=True)
class Heading:
    text: str


@dataclass(frozen=True, slots=True)
class Text:
    text: str


@dataclass(frozen=True, slots=True)
class Bullets:
    lines: Sequence[str]


@dataclass(frozen=True, slots=True)
class Alert:
    """What a reader must know before the figures. `red`: the figures are not what they seem."""

    red: bool
    lines: Sequence[str]


@dataclass(frozen=True, slots=True)
class Table:
    """The columns `left` are aligned to the left."""

    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    left: Sequence[int] = (0,)


@dataclass(frozen=True, slots=True)
class Picture:
    """Only on the page. `svg`: with colours of `model.evaluation.axes`. `wide`: it has two plots side by side."""

    svg: str
    caption: str
    wide: bool = False


Block = Heading | Text | Bullets | Alert | Table | Picture


def as_markdown(title: str, blocks: Iterable[Block]) -> str:
    return "\n\n".join([f"# {title}", *(_written(block) for block in blocks if not isinstance(block, Picture))]) + "\n"


def _written(block: Heading | Text | Bullets | Alert | Table) -> str:
    match block:
        case Heading(text):
            return f"## {text}"
        case Text(text):
            return text
        case Bullets(lines):
            return "\n".join(f"- {line}" for line in lines)
        case Alert(red, lines):
            mark = "🔴" if red else "🟡"
            return "\n".join(f"> {mark} {line}\n>" for line in lines).removesuffix("\n>")
        case Table(heads, rows, left):
            return markdown.table(heads, rows, left)
