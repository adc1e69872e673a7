"""What an application has in Kafka beside its input, and how it is removed: for `rec2pm reset`."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from stream.kafka import names
from stream.kafka.group_members import group_members
from stream.kafka.names import Names
from stream.kafka.shown_topics import ANSWERS_WITHIN_S, kafka_error, topics_found

_GONE_WITHIN_S: Final = 30.0
_LOOK_EVERY_S: Final = 0.2


@dataclass(frozen=True, slots=True)
class Group:
    """A consumer group of the application. `members`: who is in it, in words."""

    name: str
    members: Sequence[str]


@dataclass(frozen=True, slots=True)
class Owned:
    """What is there."""

    topics: Sequence[str]
    """In the order in which they are removed: the state comes last, so that a removal that is interrupted leaves no
    offsets without it.
    """
    groups: Sequence[Group]

    @property
    def busy(self) -> list[Group]:
        """The groups that somebody is in."""
        return [group for group in self.groups if group.members]


def owned(admin: AdminClient, on: Names, *, interactions: bool) -> Owned:
    """What the application has: its topics, without or with the input, and its groups.

    Raises:
        KafkaException: Kafka does not answer, or refuses the question.
    """
    there = topics_found(admin)
    wanted = [
        on.recommendations,
        names.dead_letter_topic(on.app),
        names.models_topic(on.app),
        names.changelog_topic(on.app),
        *([on.interactions] if interactions else []),
    ]
    groups = sorted(name for name in _groups(admin) if _is_ours(name, on.app))
    return Owned(
        [topic for topic in wanted if topic in there], [Group(name, _members(admin, on.app, name)) for name in groups]
    )


def _groups(admin: AdminClient) -> list[str]:
    listed: Any = admin.list_consumer_groups(request_timeout=ANSWERS_WITHIN_S).result(ANSWERS_WITHIN_S)
    return [each.group_id for each in listed.valid]


def _is_ours(group: str, app: str) -> bool:
    """Whether an application has this group. Another one may be called `APP.more`, so a prefix alone is not enough."""
    several = (names.view_group(app, ""), names.produce_id(app, ""))
    return group in (
        app,
        names.reader_group(app),
        names.replay_group(app),
        names.trainer_group(app),
    ) or group.startswith(several)


def _members(admin: AdminClient, app: str, group: str) -> list[str]:
    """The members in words; none where the broker does not know the question."""
    found = group_members(admin, group)
    if group == app:
        return [f"{each.worker or 'unknown'} at {each.host}" for each in found or ()]
    return [f"a client at {each.host}" for each in found or ()]


def remove_groups(admin: AdminClient, groups: Sequence[str]) -> None:
    """Delete consumer groups with their offsets. One that is gone already is passed over.

    Raises:
        KafkaException: Kafka refuses it: somebody is in the group, or a right is missing.
    """
    if not groups:
        return
    for future in admin.delete_consumer_groups(list(groups), request_timeout=ANSWERS_WITHIN_S).values():
        try:
            future.result(ANSWERS_WITHIN_S)
        except KafkaException as error:
            if kafka_error(error).code() != KafkaError.GROUP_ID_NOT_FOUND:
                raise


def remove_topics(admin: AdminClient, topics: Sequence[str]) -> None:
    """Delete topics one after the other, and wait until Kafka no longer lists them.

    Raises:
        KafkaException: Kafka refuses it, or still lists one in the end.
    """
    for topic in topics:
        (future,) = admin.delete_topics([topic], request_timeout=ANSWERS_WITHIN_S).values()
        try:
            future.result(ANSWERS_WITHIN_S)
        except KafkaException as error:
            if kafka_error(error).code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                raise
    deadline = time.monotonic() + _GONE_WITHIN_S
    while left := topics_found(admin).keys() & set(topics):
        if time.monotonic() > deadline:
            raise KafkaException(
                KafkaError(
                    KafkaError._TIMED_OUT, f"still listed after {_GONE_WITHIN_S:.0f} s: {', '.join(sorted(left))}"
                )
            )
        time.sleep(_LOOK_EVERY_S)
