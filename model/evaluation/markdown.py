"""Numbers and tables as Markdown."""

from collections.abc import Iterable, Sequence

from model.evaluation.significance import Estimate


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], left: Sequence[int] = (0,)) -> str:
    """A table. The columns `left` are aligned to the left, others to the right."""
    rule = "|".join(":--" if at in left else "--:" for at in range(len(heads)))
    return "\n".join([_row(heads), f"|{rule}|", *(_row(row) for row in rows)])


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def interval(estimate: Estimate) -> str:
    return f"{estimate.value:.4f} [{estimate.low:.4f}, {estimate.high:.4f}]"


def p_value(p: float) -> str:
    return "< 0.0001" if p < 0.0001 else f"{p:.4f}"


def verdict(passed: bool | None) -> str:
    return "not checked" if passed is None else "PASS" if passed else "FAIL"
