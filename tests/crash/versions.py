"""Model versions as the oracle knows them: what each computes, by the artifact alone."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, TypeAlias

from tests.crash import arithmetic
from tests.crash.arithmetic import EMPTY, Catalogue

Memory: TypeAlias = Hashable
"""A preference memory, which only versions of its memory format understand."""


class Ranking(NamedTuple):
    """A list. `beyond`: of items that might stand in it as well, were scores a little different, the scores."""

    items: list[int | str]
    scores: list[float]
    beyond: Mapping[int | str, float] = {}


class Folded(NamedTuple):
    """A memory after a segment, and what a list right after it is ranked by."""

    memory: Memory
    hidden: object


class Version(Protocol):
    """One model version."""

    @property
    def reference(self) -> str: ...
    @property
    def memory_format(self) -> str: ...
    @property
    def unknown(self) -> int:
        """The row that stands for every item that the catalogue lacks."""

    def rows(self, items: Sequence[str]) -> list[int]:
        """The rows of items, as text."""

    def may_fail(self, segment: Sequence[int]) -> bool:
        """Whether folding these rows can raise."""

    def fold(self, memory: Memory | None, segment: Sequence[int], times: Sequence[int]) -> Folded:
        """The memory after a whole segment; None: there is no memory before it."""

    def ranked(
        self,
        memory: Memory | None,
        hidden: object,
        working: Sequence[int],
        times: Sequence[int],
        k: int,
        exclude: Sequence[int],
    ) -> Ranking:
        """A list after a memory and working memory. `hidden`: of the fold right before, if there is no working item."""

    def popular(self, k: int, exclude: Sequence[int], time: int) -> Ranking:
        """The list of a user of whom nothing is known."""

    def floats(self, memory: Memory | None) -> list[float]:
        """A memory as it is stored."""


@dataclass(frozen=True)
class LedgerVersion:
    """A version of `tests.crash.ledger`. `fails`: folding the last item of its catalogue raises."""

    reference: str
    catalogue: Catalogue
    dialect: int = 1
    salt: int = 0
    fails: bool = False
    _rows: dict[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_rows", self.catalogue.rows())

    @property
    def memory_format(self) -> str:
        return f"ledger/{self.dialect}"

    @property
    def unknown(self) -> int:
        return self.catalogue.unknown

    def rows(self, items: Sequence[str]) -> list[int]:
        unknown = self.unknown
        return [self._rows.get(item, unknown) for item in items]

    def may_fail(self, segment: Sequence[int]) -> bool:
        return self.fails and len(self.catalogue.item_ids) in segment

    def fold(self, memory: Memory | None, segment: Sequence[int], times: Sequence[int]) -> Folded:
        return Folded(arithmetic.fold(_numbers(memory), segment, self.dialect), None)

    def ranked(
        self,
        memory: Memory | None,
        hidden: object,
        working: Sequence[int],
        times: Sequence[int],
        k: int,
        exclude: Sequence[int],
    ) -> Ranking:
        return Ranking(*self.catalogue.ranked(arithmetic.seed(_numbers(memory), working, self.salt), k, exclude))

    def popular(self, k: int, exclude: Sequence[int], time: int) -> Ranking:
        return self.ranked(None, None, (), (), k, exclude)

    def floats(self, memory: Memory | None) -> list[float]:
        return [float(each) for each in _numbers(memory)]


def _numbers(memory: Memory | None) -> arithmetic.Memory:
    return EMPTY if memory is None else memory  # type: ignore[return-value]  # what this version folded
