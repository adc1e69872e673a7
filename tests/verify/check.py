"""What this program says at its end."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Check:
    """One claim, and whether it held."""

    claim: str
    found: str
    holds: bool

    def __str__(self) -> str:
        return f"{'PASS' if self.holds else 'FAIL'}  {self.claim}: {self.found}"


def none_of(claim: str, count: int, differences: Sequence[str]) -> Check:
    """The claim that nothing differs, with the first difference if something does.

    Args:
        count: how many things were compared.
        differences: in the order in which they should be looked at.
    """
    first = f"; the first: {differences[0]}" if differences else ""
    return Check(claim, f"{len(differences)} of {count} differ{first}", not differences)
