"""Who is in the workers' group, as Kafka sees it: a worker that was killed stays for its session."""

import time
from dataclasses import dataclass
from typing import Any, Final

from confluent_kafka import ConsumerGroupState, KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from stream.kafka.errors import comes_back
from stream.kafka.names import worker_id

_ANSWERS_WITHIN_S: Final = 30.0
_CALL_S: Final = 5.0
_AGAIN_AFTER_S: Final = 0.1


@dataclass(frozen=True, slots=True)
class Member:
    """A member of the group. `partitions`: how many partitions of the input it has at the moment; `numbers`: which."""

    worker: str | None
    """Its name; None if it is no worker of rec2pm, or a version of it that said no name."""
    host: str
    partitions: int
    numbers: tuple[int, ...] = ()


def group_members(admin: AdminClient, app: str) -> list[Member] | None:
    """The members of the workers' group; empty if there is no such group. None: the broker does not know the question,
    as the embedded one does not.

    Raises:
        KafkaException: Kafka does not answer, or refuses the question.
    """
    try:
        found = _described(admin, app)
    except KafkaException as error:
        if error.args[0].code() == KafkaError.GROUP_ID_NOT_FOUND:
            return []
        raise
    # A stable group has members. The embedded broker says that it is stable, and does not say who they are.
    if found.state == ConsumerGroupState.UNKNOWN or (found.state == ConsumerGroupState.STABLE and not found.members):
        return None
    prefix = worker_id(app, "")
    return [
        Member(
            each.client_id.removeprefix(prefix) if each.client_id.startswith(prefix) else None,
            each.host,
            len(each.assignment.topic_partitions),
            tuple(sorted(place.partition for place in each.assignment.topic_partitions)),
        )
        for each in found.members
    ]


def _described(admin: AdminClient, group: str) -> Any:
    deadline = time.monotonic() + _ANSWERS_WITHIN_S
    while True:
        (future,) = admin.describe_consumer_groups([group], request_timeout=_CALL_S).values()
        try:
            return future.result(2 * _CALL_S)
        except KafkaException as error:
            reason: KafkaError = error.args[0]
            # On a new Kafka the group's coordinator is made by the first question.
            if not comes_back(reason) or time.monotonic() > deadline:
                raise
            time.sleep(_AGAIN_AFTER_S)
