"""The marks of a partition, read from the changelog: which model version served it from which input offset on."""

from collections.abc import Mapping
from typing import Any

from state.codec import MARK, Mark, read_mark
from stream.kafka.names import changelog_topic
from stream.kafka.read_topic import committed_records


def marks(options: Mapping[str, Any], app: str, partition: int) -> list[Mark]:
    """The marks of one partition, oldest first.

    Args:
        options: for the connection, `bootstrap.servers` among them.
        app: the name of the application.

    Raises:
        BehindOpenTransaction: a transaction is still open, and records wait behind it.
        KafkaUnusable: the partition cannot be read to its end.
        StateCorrupted, StateFormatUnknown: a mark cannot be read.
    """
    found: dict[bytes, Mark] = {}
    for message in committed_records(options, changelog_topic(app), partition):
        key, value = message.key() or b"", message.value()
        if key.startswith(MARK) and value is not None:
            found[key] = read_mark(value)
    return [mark for _, mark in sorted(found.items())]
