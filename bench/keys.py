"""What it costs to look at keys: `python -m bench.keys`.

A step reads the keys of its poll as users, and compares some of them with their partitions. Microseconds, best of many.
"""

import timeit
import uuid
from typing import Final

from stream.kafka.partitioner import partitions_of
from stream.key_check import KeyCheck
from stream.keys import Format, KeyFormat

_PARTITIONS: Final = 4
_FORMATS: Final[tuple[Format, ...]] = ("utf8", "long", "uuid")


def main() -> None:
    print(f"{'keys':<6}{'users in a step':>16}{'read as users':>15}{'compared':>10}   (microseconds)")
    for name in _FORMATS:
        for count in (1, 20, 2_000, 20_000):
            form = KeyFormat(name)
            users = [str(uuid.UUID(int=at << 64)) if name == "uuid" else str(at) for at in range(count)]
            keys = [form.key(user) for user in users]
            placed: dict[int, list[bytes]] = {}
            for user, number in zip(users, partitions_of(keys, _PARTITIONS, "murmur2").tolist(), strict=True):
                placed.setdefault(number, []).append(user.encode())
            check = KeyCheck("clicks", "murmur2", form)
            read = _us(lambda form=form, keys=keys: form.users(keys))
            compared = _us(lambda check=check, placed=placed: check.compare(placed, _PARTITIONS))
            print(f"{name:<6}{count:>16}{read:>15.0f}{compared:>10.0f}")


def _us(call: object) -> float:
    return min(timeit.repeat(call, number=10, repeat=20)) / 10 * 1e6  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
