"""Items that a catalogue lacks, in words: their ids beside those of the catalogue, so that a mismatch is seen.

Leading zeros, prefixes and lower case are the usual ones: `"00022"` here is `22` there.
"""

import json
import re
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Final

from model.ids import Id

SHOWN: Final = 3
LOOKED_AT: Final = 100_000
"""Ids of the catalogue that are compared, the most popular ones: it takes a tenth of a second."""
_NUMBER: Final = re.compile(r"(\d+)(?:\.0+)?$")
_LONGEST: Final = 40
"""Characters of an id that are shown."""


def both_sides(unknown: Iterable[Id], catalogue: Sequence[Id]) -> str:
    """Some of the unknown ids, and ids of the catalogue: those that look like them, else the most popular ones.

    Text is in quotes, with everything escaped that a terminal could take for a command.
    """
    came = list(islice(dict.fromkeys(unknown), SHOWN))
    wanted = {_likeness(item): item for item in came}
    alike: dict[str, Id] = {}
    for item in islice(catalogue, LOOKED_AT):
        if (likeness := _likeness(item)) in wanted:
            alike.setdefault(likeness, item)
    there = [alike[each] for each in wanted if each in alike] or list(islice(catalogue, SHOWN))
    return f"{_listed(came)}; the catalogue has {_listed(there)}"


def _likeness(item: Id) -> str:
    """What is left of an id without the usual differences of two systems."""
    text = str(item).strip()
    number = _NUMBER.search(text)
    return text.casefold() if number is None else number[1].lstrip("0") or "0"


def _listed(items: Sequence[Id]) -> str:
    return ", ".join(str(item) if isinstance(item, int) else json.dumps(_cut(item)) for item in items)


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "…"
