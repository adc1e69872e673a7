"""All dead letters, and which of them were replayed, read from Kafka."""

from collections.abc import Mapping
from typing import Any, Final, Literal

from stream.commands.dead_letters.choose import Survey
from stream.commands.dead_letters.letters import letters
from stream.commands.dead_letters.read_notes import offsets_kept_ms, remembered
from stream.kafka.read_topic import partitions

_HOUR_MS: Final = 3_600_000


def survey(
    kafka: Mapping[str, Any],
    app: str,
    topic: str,
    now_ms: int,
    isolation: Literal["read_committed", "read_uncommitted"],
) -> Survey:
    """Read all letters up to the present end.

    Args:
        isolation: of the notes; read_committed waits for the end of a replay that is under way, read_uncommitted tells
            what was before it.
    """
    numbers = partitions(kafka, topic)
    known = remembered(kafka, app, topic, numbers, isolation)
    since = 0 if None not in known.values() else now_ms - offsets_kept_ms(kafka) + _HOUR_MS
    return Survey(list(letters(kafka, topic, numbers)), known, since)
