"""What the keys of the input say about its producers: whether a user's records are where the key sends them.

State belongs to a partition. If two producers send a user to two partitions, the user has two half histories, and each
half makes lists. Nothing else notices: both are valid. So keys are compared with the partition that they are in.
"""

from collections import deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final, TypeAlias, get_args

import numpy as np

from stream.kafka.known_partitioners import IN_LIBRDKAFKA, Expected, Partitioner
from stream.kafka.partitioner import partitions_of
from stream.keys import KeyFormat, quoted

Pair: TypeAlias = tuple[bytes, int]
"""A key, and the partition that it is in."""

COMPARED_A_STEP: Final = 100
"""Comparing more would cost a large step some percent of its time. The next step compares others."""
JUDGED_AMONG: Final = 1000
JUDGED_FROM: Final = 20
_CERTAIN: Final = 1000
"""A partitioner explains keys if this many others would not."""
_KNOWN: Final[dict[Partitioner, str]] = {
    "murmur2": "the default of Java",
    "crc32": "the default of librdkafka",
    "fnv1a": "the default of Sarama",
}
IN_QUOTES: Final = (
    "the keys have quotes, as JSON serializers write text, and the quotes are part of the user ids. "
    "REC2PM_KEY_FORMAT=json reads the text inside; choose a new REC2PM_APP with it, because those are other users"
)
_TWO_HALVES: Final = "a user in two partitions has two half histories, and lists that flip between them"


@dataclass(frozen=True, slots=True)
class Compared:
    """What one step showed."""

    keys: int = 0
    misplaced: int = 0
    warnings: Sequence[str] = ()


class KeyCheck:
    """Compares some keys of each step, and warns once of each fault."""

    def __init__(self, topic: str, expected: Expected = "murmur2", keys: KeyFormat | None = None) -> None:
        """`topic`: the interactions topic, named in warnings."""
        self._topic: Final = topic
        self._expected: Final = expected
        self._keys: Final = keys or KeyFormat()
        self._newest: Final[deque[Pair]] = deque(maxlen=JUDGED_AMONG)
        self._suspects = False
        """A key was misplaced, and there is no warning yet."""
        self._may_warn_of_partitions = expected != "ignore"
        self._may_warn_of_quotes = self._keys.name == "utf8"

    def compare(self, users: Mapping[int, Collection[bytes]], width: int) -> Compared:
        """Compare users of a step with their partitions.

        Args:
            users: partition → user ids.
            width: the number of partitions of the topic.
        """
        warnings = self._of_quotes(users)
        if not users or self._expected == "ignore":
            return Compared(warnings=warnings)
        share = max(1, COMPARED_A_STEP // len(users))
        pairs: list[Pair] = []
        for number, each in users.items():
            pairs += [(key, number) for key in self._keys.keys(islice(each, share))]
        wrong = len(misplaced(pairs, width, self._expected))
        if self._may_warn_of_partitions:
            self._newest.extend(pairs)
            self._suspects |= wrong > 0
            if self._suspects and len(self._newest) >= JUDGED_FROM:
                self._may_warn_of_partitions = False
                warnings += [str(judged(self._newest, width, self._expected, self._topic))]
        return Compared(len(pairs), wrong, warnings)

    def _of_quotes(self, users: Mapping[int, Collection[bytes]]) -> list[str]:
        if not self._may_warn_of_quotes or not any(quoted(user) for each in users.values() for user in islice(each, 1)):
            return []
        self._may_warn_of_quotes = False
        return [f"{self._topic}: {IN_QUOTES}"]


def misplaced(pairs: Sequence[Pair], width: int, partitioner: Partitioner) -> Sequence[int]:
    """Which of the pairs have a key that this partitioner sends to another partition."""
    own = partitions_of([key for key, _ in pairs], width, partitioner)
    return np.flatnonzero(own != np.fromiter((number for _, number in pairs), np.int64, len(pairs))).tolist()


def judged(pairs: Collection[Pair], width: int, expected: Partitioner, topic: str) -> str | None:
    """What is wrong with the partitions of these keys, and what to do; None if each is in its own partition."""
    pairs = list(pairs)
    wrong = misplaced(pairs, width, expected)
    if not wrong:
        return None
    key, found = pairs[wrong[0]]
    own = int(partitions_of([key], width, expected)[0])
    said = (
        f"{topic}: {len(wrong)} of {len(pairs)} keys are not in the partition where {expected} (REC2PM_PARTITIONER) "
        f"sends them; one of them is in partition {found} instead of {own}. "
    )
    every = _explains(pairs, width)
    if every is not None:
        return said + (
            f"All {len(pairs)} fit {_called(every)}: set REC2PM_PARTITIONER={every}, or "
            f"partitioner={IN_LIBRDKAFKA[expected]} in the producer. Other programs that send interactions, rec2pm's "
            f"commands among them, must agree with it: {_TWO_HALVES}"
        )
    rest = _explains([pairs[at] for at in wrong], width)
    if rest is not None:
        return said + (
            f"They fit {_called(rest)}, and the others fit {_called(expected)}: two producers disagree, and {_TWO_HALVES}. "
            f"Set partitioner={IN_LIBRDKAFKA[expected]} in the one that differs"
        )
    if width ** len(wrong) < _CERTAIN:
        return said + f"They are too few to tell why. Look for a second producer: {_TWO_HALVES}"
    return said + (
        f"No known partitioner ({', '.join(_KNOWN)}) explains them: {_TWO_HALVES}. If your producers choose "
        "partitions in their own way, and always the same one for a user, set REC2PM_PARTITIONER=ignore"
    )


def _explains(pairs: Sequence[Pair], width: int) -> Partitioner | None:
    """The partitioner that all of these pairs fit, and not by chance."""
    if width ** len(pairs) < _CERTAIN:
        return None
    return next((each for each in get_args(Partitioner) if not misplaced(pairs, width, each)), None)


def _called(partitioner: Partitioner) -> str:
    return f"{partitioner} ({_KNOWN[partitioner]})"
