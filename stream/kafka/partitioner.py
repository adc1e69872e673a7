"""The partition of a key, as the known partitioners compute it (`stream.kafka.known_partitioners`).

A key that is null or empty goes anywhere, so it has no partition of its own and is not asked about here.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from stream.kafka.known_partitioners import Partitioner

Hashes: TypeAlias = NDArray[np.uint32]

_SEED: Final = np.uint32(0x9747B28C)
_M: Final = np.uint32(0x5BD1E995)
_FNV_BASIS: Final = np.uint32(2166136261)
_FNV_PRIME: Final = np.uint32(16777619)


def partition_of(key: bytes, partitions: int, partitioner: Partitioner = "murmur2") -> int:
    """The partition of a key in a topic with this number of partitions."""
    return int(partitions_of([key], partitions, partitioner)[0])


def partitions_of(keys: Sequence[bytes], partitions: int, partitioner: Partitioner) -> NDArray[np.int64]:
    """The partition of each key.

    Args:
        keys: none of them empty.
        partitions: of the topic.
    """
    return _HASHES[partitioner](keys).astype(np.int64) % partitions


def _murmur2(keys: Sequence[bytes]) -> Hashes:
    """Java's murmur2, made positive by dropping the sign bit."""
    lengths, padded = _matrix(keys)
    words = np.ascontiguousarray(padded.view("<u4").T)  # word × key
    whole = lengths >> 2
    hashed = _SEED ^ lengths.astype(np.uint32)
    shortest = int(whole.min(initial=len(words)))
    for at, word in enumerate(words):
        if at < shortest:
            hashed = hashed * _M ^ _mixed(word)
        else:
            longer = np.flatnonzero(whole > at)
            hashed[longer] = hashed[longer] * _M ^ _mixed(word[longer])
    rest = np.flatnonzero(lengths & 3)  # bytes beyond a key are zero, so the last word holds what is left of it
    hashed[rest] = (hashed[rest] ^ words[whole[rest], rest]) * _M
    hashed = (hashed ^ hashed >> np.uint32(13)) * _M
    return (hashed ^ hashed >> np.uint32(15)) & np.uint32(0x7FFFFFFF)


def _mixed(word: Hashes) -> Hashes:
    word = word * _M
    return (word ^ word >> np.uint32(24)) * _M


def _crc32(keys: Sequence[bytes]) -> Hashes:
    return np.fromiter(map(crc32, keys), np.uint32, len(keys))


def _fnv1a(keys: Sequence[bytes]) -> Hashes:
    """FNV-1a as a signed number, made positive by negating it."""
    lengths, padded = _matrix(keys)
    octets = np.ascontiguousarray(padded.view(np.uint8).T)  # byte × key
    hashed = np.full(len(keys), _FNV_BASIS)
    shortest = int(lengths.min(initial=len(octets)))
    for at, octet in enumerate(octets):
        if at < shortest:
            hashed = (hashed ^ octet) * _FNV_PRIME
        elif len(longer := np.flatnonzero(lengths > at)):
            hashed[longer] = (hashed[longer] ^ octet[longer]) * _FNV_PRIME
    return np.where(hashed >> np.uint32(31), ~hashed + np.uint32(1), hashed)


_HASHES: Final[dict[Partitioner, Callable[[Sequence[bytes]], Hashes]]] = {
    "murmur2": _murmur2,
    "crc32": _crc32,
    "fnv1a": _fnv1a,
}


def _matrix(keys: Sequence[bytes]) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """The length of each key, and the keys as rows of bytes, padded with zeros to whole words."""
    lengths = np.fromiter(map(len, keys), np.int64, len(keys))
    width = -(-int(lengths.max(initial=1)) // 4) * 4
    return lengths, np.array(keys, f"S{width}")[:, None]
