"""What one process does at a time: one shard through one model, or through versions that serve one after the other."""

from typing import Literal

import msgspec


class Serves(msgspec.Struct, frozen=True):
    """A version and from where on it serves: from this time (epoch ms) and this offset on."""

    folder: str
    """A copy of the version on this machine."""
    sha256: str
    promotion: str
    from_ms: int
    from_offset: int = 0


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """One shard. Nothing in it depends on how many processes there are."""

    partition: int
    shard: str
    """The file with its interactions (`stream.replay.ordered.INTERACTIONS`)."""
    out: str
    """The folder for what comes out, and for what is not finished."""
    serves: tuple[Serves, ...]
    """In the order in which they serve; the first one from the beginning on."""
    memory: bool = True
    """False: every list is made from the newest items alone."""
    cadence: Literal["interaction", "fold"] | int
    exclude: Literal["none", "working", "kept"]
    top_k: int
    """Items of a list that is written down."""
    depth: int
    """Items of a list that is scored, at least `top_k`."""
    keep_segments: int
    keep_formats: int
    chunk: int
    """Interactions in a step."""
    cache_users: int = 100_000
    store_bytes: int = 64 << 20
