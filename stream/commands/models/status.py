"""`rec2pm models status`: what should serve, and what each worker does about it."""

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from confluent_kafka.admin import AdminClient

from stream.commands.models.table import INDENT, table
from stream.commands.output import counted, json_line
from stream.kafka.group_members import Member, group_members
from stream.kafka.models_topic import ModelsReader, read_models
from stream.promotion.followers import Followers, followers
from stream.promotion.record import Models, in_words, iso

ASK_EVERY_S: Final = 0.5


def judged(models: Models, alias: str, members: list[Member] | None, now_ms: int) -> Followers:
    """The workers. A member without a worker's name is shown by its host."""
    if members is None:
        return followers(models, alias, None, now_ms)
    named = {each.worker or f"(unknown, on {each.host})": each.partitions for each in members}
    return followers(models, alias, named, now_ms)


def status(kafka: Mapping[str, Any], app: str, alias: str, admin: AdminClient, now_ms: int) -> Followers:
    """The workers now.

    Raises:
        TopicsUnusable, BehindOpenTransaction, KafkaUnusable: the topic cannot be read.
        KafkaException: Kafka does not answer.
    """
    return judged(read_models(kafka, app), alias, group_members(admin, app), now_ms)


def wait_until_settled(
    kafka: Mapping[str, Any], app: str, alias: str, admin: AdminClient, *, timeout_s: float, said: Callable[[str], None]
) -> bool:
    """Look until every worker of the group serves what the alias names. False if the time was over before.

    Args:
        said: called with a line whenever the number of workers that serve it changes.

    Raises:
        KafkaUnusable: the topic cannot be read.
        KafkaException: Kafka does not answer.
    """
    deadline, last = time.monotonic() + timeout_s, ""
    reader = ModelsReader(kafka, app)
    try:
        while time.monotonic() < deadline:
            ask_at = time.monotonic() + ASK_EVERY_S
            while (left := ask_at - time.monotonic()) > 0:
                reader.poll(left)
            if not reader.at_end:
                continue
            found = judged(reader.models, alias, group_members(admin, app), 0)
            if found.settled:
                return True
            if (line := summary(found)) != last:
                last = line
                said(f"waits: {line.removeprefix('FAIL ')}")
    finally:
        reader.close()
    return False


def summary(found: Followers) -> str:
    """One line: how many workers serve it."""
    if found.promotion is None:
        return f"nothing is promoted as {found.alias}: workers serve what REC2PM_MODEL names"
    if not found.asked:
        return f"no worker is in the group that follows {found.alias}: nobody serves {found.promotion.version}"
    fit = sum(each.fits is True for each in found.asked)
    if fit == len(found.asked):
        verb = "serves" if fit == 1 else "serve"
        return f"PASS {counted(fit, 'worker')} of the group {verb} {found.promotion.version}: all of them"
    return f"FAIL {fit} of {counted(len(found.asked), 'worker')} of the group serve {found.promotion.version}"


def status_lines(found: Followers) -> Iterator[str]:
    """What is promoted, a row for each worker with what keeps it below, and the summary."""
    if found.promotion is not None:
        yield f"{found.alias} is {found.promotion.version}: {in_words(found.promotion)}"
    if found.workers:
        heads = ("WORKER", "PARTITIONS", "SERVES", "STATE", "SINCE")
        rows = [
            (
                each.worker,
                "-" if each.partitions is None else str(each.partitions),
                each.serves or "-",
                each.doing,
                "-" if each.since_ms is None else iso(each.since_ms),
            )
            for each in found.workers
        ]
        head, *lines = table(heads, rows, frozenset({"PARTITIONS"}))
        yield head
        for each, line in zip(found.workers, lines, strict=True):
            yield line
            if each.why is not None:
                yield f"{INDENT}{each.why}"
    if found.old:
        yield f"{counted(found.old, 'more worker')} last reported more than a day ago and did not stop cleanly"
    if not found.group_known:
        yield "this broker does not say who is in the group: a worker that was killed counts as if it were there"
    yield summary(found)


def status_json(found: Followers) -> str:
    promotion = found.promotion
    return json_line(
        {
            "alias": found.alias,
            "promotion": promotion,
            "settled": found.settled,
            "workers": found.workers,
            "gone_for_long": found.old,
            "group_known": found.group_known,
        }
    )
