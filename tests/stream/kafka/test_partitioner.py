"""Partitioners: by the values of their authors' tests, as written down in scalar form, and as real producers do."""

from typing import Final, get_args
from uuid import uuid4

import pytest
from confluent_kafka import KafkaError, Message, Producer
from confluent_kafka.admin import AdminClient, NewTopic
from hypothesis import example, given
from hypothesis import strategies as st

from stream.kafka.known_partitioners import IN_LIBRDKAFKA, Partitioner
from stream.kafka.partitioner import partition_of, partitions_of

_32_BITS: Final = 0xFFFFFFFF
KEYS: Final = st.binary(min_size=1, max_size=255)
PARTITIONERS: Final[tuple[Partitioner, ...]] = get_args(Partitioner)


def murmur2(key: bytes) -> int:
    """org.apache.kafka.common.utils.Utils.murmur2, key by key."""
    hashed = 0x9747B28C ^ len(key)
    whole = len(key) & ~3
    for at in range(0, whole, 4):
        word = int.from_bytes(key[at : at + 4], "little") * 0x5BD1E995 & _32_BITS
        word = (word ^ word >> 24) * 0x5BD1E995 & _32_BITS
        hashed = (hashed * 0x5BD1E995 & _32_BITS) ^ word
    if rest := key[whole:]:
        hashed = (hashed ^ int.from_bytes(rest, "little")) * 0x5BD1E995 & _32_BITS
    hashed = (hashed ^ hashed >> 13) * 0x5BD1E995 & _32_BITS
    return hashed ^ hashed >> 15


def crc32(key: bytes) -> int:
    """The reflected CRC-32 of IEEE 802.3, bit by bit."""
    rest = _32_BITS
    for octet in key:
        rest ^= octet
        for _ in range(8):
            rest = rest >> 1 ^ (0xEDB88320 if rest & 1 else 0)
    return rest ^ _32_BITS


def fnv1a(key: bytes) -> int:
    """librdkafka's rd_fnv1a: of the signed number it takes the absolute value, as Sarama does."""
    hashed = 2166136261
    for octet in key:
        hashed = (hashed ^ octet) * 16777619 & _32_BITS
    return hashed if hashed < 1 << 31 else (1 << 32) - hashed


def scalar(key: bytes, partitions: int, partitioner: Partitioner) -> int:
    match partitioner:
        case "murmur2":
            return (murmur2(key) & 0x7FFFFFFF) % partitions
        case "crc32":
            return crc32(key) % partitions
        case "fnv1a":
            return fnv1a(key) % partitions


@pytest.mark.parametrize(
    ("key", "hashed"),
    [
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_murmur2_has_the_values_of_javas_own_test(key: bytes, hashed: int) -> None:
    """org.apache.kafka.common.utils.UtilsTest. A negative hash is made positive by dropping its sign bit."""
    assert partition_of(key, 1 << 31) == hashed & 0x7FFFFFFF


@given(st.lists(KEYS, max_size=30), st.integers(1, 10_000))
@example([b"a", b"ab", b"abc", b"abcd", b"abcde"], 7)
@example([b"a\0", b"a"], 7)
@example([], 3)
@example([b"u" * 255, b"\xff"], 1000)
def test_all_keys_of_a_poll_are_placed_as_each_alone(keys: list[bytes], partitions: int) -> None:
    for name in PARTITIONERS:
        assert partitions_of(keys, partitions, name).tolist() == [scalar(key, partitions, name) for key in keys]


@pytest.mark.parametrize("partitioner", PARTITIONERS)
def test_a_real_producer_sends_keys_where_they_are_expected(bootstrap: str, partitioner: Partitioner) -> None:
    topic = f"test-{uuid4().hex}"
    admin = AdminClient({"bootstrap.servers": bootstrap})
    admin.create_topics([NewTopic(topic, 7, 1)])[topic].result(30)
    keys = [str(number).encode() for number in range(200)]
    keys += [uuid4().bytes for _ in range(100)] + [number.to_bytes(8, "big") for number in range(100)]
    found: dict[bytes, int] = {}

    def delivered(error: KafkaError | None, message: Message) -> None:
        assert error is None
        found[message.key() or b""] = message.partition() or 0

    producer = Producer({"bootstrap.servers": bootstrap, "partitioner": IN_LIBRDKAFKA[partitioner]})
    for key in keys:
        producer.produce(topic, b"", key, on_delivery=delivered)
    assert producer.flush(30) == 0
    assert [found[key] for key in keys] == partitions_of(keys, 7, partitioner).tolist()
