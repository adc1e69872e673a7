"""What the feeder sends: an event log, over and over, with a little of everything that a topic can hold besides."""

import random
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Final, TypeAlias

import msgspec
import polars as pl

from model.log import in_time_order, read_log
from model.synthetic import SyntheticLog, generate
from tests.crash.arithmetic import PLACES

Sent: TypeAlias = tuple[bytes | None, bytes | None]
"""Key and value."""

MALFORMED_SHARE: Final = 0.001
FORGOTTEN_SHARE: Final = 0.001
JSON_SHARE: Final = 0.02
UNKNOWN_SHARE: Final = 0.03
"""Of the log's items, how many are not in the catalogue."""
POISON: Final = "poison"
"""The item that the model fails to fold (`tests.crash.ledger`): the catalogue's last."""
POISON_SHARE: Final = 0.003
POISONED: Final = (b"poisoned-0", b"poisoned-1")
"""The users who come with it, and with nothing else."""

_MALFORMED: Final[tuple[Sent, ...]] = (
    (b"user", b""),
    (b"user", b"\xc1\x00"),
    (b"user", b"[1, 2]"),
    (b"user", b'{"item": null, "ts": 1}'),
    (b"user", b'{"ts": 1}'),
    (b"user", msgspec.msgpack.encode({"item": "x" * 300})),
    (b"user", msgspec.msgpack.encode({"item": 1, "ts": -1})),
    (b"\xff\xfe", msgspec.msgpack.encode({"item": 1})),
    (None, msgspec.msgpack.encode({"item": 1})),
    (None, None),
)


def log_of(path: Path | None, seed: int) -> pl.DataFrame:
    """user_id, item_id, timestamp in time order: of a file, or synthetic."""
    if path is None:
        return generate(SyntheticLog(users=3000, items=600, interactions_median=80, seed=seed)).interactions
    return in_time_order(read_log(str(path))).select("user_id", "item_id", "timestamp").collect()


def catalogue_of(log: pl.DataFrame, seed: int) -> list[int | str]:
    """The items that the model knows: most of the log's, and no more than it can rank."""
    items: list[int | str] = log["item_id"].unique().sort().to_list()
    known = random.Random(seed).sample(items, round(len(items) * (1 - UNKNOWN_SHARE)))
    return [*known[: PLACES - 2], POISON]


def records(log: pl.DataFrame, chosen: random.Random) -> Iterator[Sent]:
    """Without an end."""
    pack, json = msgspec.msgpack.encode, msgspec.json.encode
    recent: deque[bytes] = deque(maxlen=500)
    while True:
        for user, item, time in log.iter_rows():
            key = str(user).encode()
            recent.append(key)
            drawn = chosen.random()
            if drawn < MALFORMED_SHARE:
                yield chosen.choice(_MALFORMED)
            elif drawn < MALFORMED_SHARE + FORGOTTEN_SHARE:
                yield chosen.choice(recent), None
            elif drawn < MALFORMED_SHARE + FORGOTTEN_SHARE + POISON_SHARE:
                yield chosen.choice(POISONED), pack({"item": POISON, "ts": time})
            encode = json if chosen.random() < JSON_SHARE else pack
            yield key, encode({"item": item, "ts": time})
