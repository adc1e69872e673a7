"""Tables of text: columns as wide as their widest cell, two spaces apart."""

from collections.abc import Sequence
from typing import Final

from stream.commands.output import printable

INDENT: Final = "    "


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], right: frozenset[str] = frozenset()) -> list[str]:
    """Lines of a table, the heads first.

    Args:
        right: heads of the columns that are aligned right: numbers.
    """
    cells = [list(heads), *[[printable(cell) for cell in row] for row in rows]]
    widths = [max(len(row[at]) for row in cells) for at in range(len(heads))]
    return [
        "  ".join(
            cell.rjust(width) if head in right else cell.ljust(width)
            for head, cell, width in zip(heads, row, widths, strict=True)
        ).rstrip()
        for row in cells
    ]
