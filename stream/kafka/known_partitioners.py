"""The partitioners that most producers have, by name.

murmur2   Java, and with it Kafka Streams, Connect and Flink; kafka-python, KafkaJS, franz-go;
          librdkafka's `murmur2` and `murmur2_random`
crc32     librdkafka's default: its `consistent` and `consistent_random`, in Python, Go, .NET, Node and Ruby
fnv1a     Sarama (Go) and kafka-go's Hash; librdkafka's `fnv1a` and `fnv1a_random`
"""

from typing import Final, Literal, TypeAlias

Partitioner: TypeAlias = Literal["murmur2", "crc32", "fnv1a"]
Expected: TypeAlias = Literal["murmur2", "crc32", "fnv1a", "ignore"]
"""The setting `REC2PM_PARTITIONER`: who chose the partitions of the input. `ignore`: something unknown."""

IN_LIBRDKAFKA: Final[dict[Partitioner, str]] = {
    "murmur2": "murmur2_random",
    "crc32": "consistent_random",
    "fnv1a": "fnv1a_random",
}
"""The value of librdkafka's option `partitioner`. The ending is about null keys: they go anywhere."""


def option(expected: Expected) -> dict[str, str]:
    """librdkafka's option for a producer that sends records where the other producers send them."""
    return {"partitioner": IN_LIBRDKAFKA["murmur2" if expected == "ignore" else expected]}
