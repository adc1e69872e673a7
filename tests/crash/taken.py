"""One record of a topic, as evidence."""

from typing import NamedTuple


class Taken(NamedTuple):
    """`headers` is empty where there are none."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    timestamp: int
    headers: tuple[tuple[str, bytes | None], ...] = ()
