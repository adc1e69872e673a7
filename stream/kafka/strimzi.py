"""The topics of an application and the users of its processes, as objects of Strimzi: its operators make them.

Everything here is values: nothing asks Kafka. The objects are those of kafka.strimzi.io/v1.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from stream.kafka.names import Names
from stream.kafka.rights import Right, of_trainer, of_view, of_worker
from stream.kafka.shown_topics import LARGEST
from stream.kafka.topics import TopicSpec, with_headers

Object = Mapping[str, Any]

API_VERSION: Final = "kafka.strimzi.io/v1"
KAFKAS_LARGEST: Final = 1_048_588
"""Kafka's own default for the largest batch of records, bytes. No Kafka is asked for a topic's own."""
_NAME_LENGTH: Final = 253
_RESOURCES: Final = {"topic": "topic", "group": "group", "transactional id": "transactionalId"}
_PLAIN: Final = re.compile(r"[A-Za-z][A-Za-z0-9./-]*")
_NOT_TEXT: Final = frozenset({"true", "false", "yes", "no", "on", "off", "null", "y", "n"})
"""Words that YAML does not read as text."""


def topic(spec: TopicSpec, cluster: str) -> Object:
    """The KafkaTopic of a topic.

    Args:
        cluster: the name of the Kafka object whose operator makes it.
    """
    name = object_name(spec.name)
    config = spec.config if spec.holds is None else {**spec.config, LARGEST: str(with_headers(KAFKAS_LARGEST))}
    return {
        "apiVersion": API_VERSION,
        "kind": "KafkaTopic",
        "metadata": _metadata(name, cluster),
        "spec": {
            **({} if name == spec.name else {"topicName": spec.name}),
            "partitions": spec.partitions,
            **({} if spec.replication is None else {"replicas": spec.replication}),
            "config": {key: int(value) if value.isdecimal() else value for key, value in config.items()},
        },
    }


def users(on: Names, cluster: str) -> list[Object]:
    """The KafkaUsers of the processes that run all the time, each with the rights it needs: worker, trainer, view."""
    processes = {"worker": of_worker(on), "trainer": of_trainer(on, promote=True), "view": of_view(on, "*")}
    return [
        {
            "apiVersion": API_VERSION,
            "kind": "KafkaUser",
            "metadata": _metadata(object_name(f"{on.app}-{process}"), cluster),
            "spec": {
                "authentication": {"type": "scram-sha-512"},
                "authorization": {"type": "simple", "acls": list(_acls(rights))},
            },
        }
        for process, rights in processes.items()
    ]


def object_name(name: str) -> str:
    """A name as Kubernetes takes it. One that must be changed gets a hash, so that two names stay two."""
    fitting = re.sub(r"[^a-z0-9.-]", "-", name.lower())
    fitting = re.sub(r"[.-]*\.[.-]*", ".", fitting).strip(".-")
    if fitting == name and len(name) <= _NAME_LENGTH:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{fitting[: _NAME_LENGTH - 9].rstrip('.-')}-{digest}".lstrip("-")


def as_yaml(objects: Iterable[tuple[str, Object]]) -> Iterator[str]:
    """Lines of YAML: each comment with its object."""
    for comment, each in objects:
        yield "---"
        yield f"# {comment}"
        yield from _lines(each, "")


def _metadata(name: str, cluster: str) -> Object:
    return {"name": name, "labels": {"strimzi.io/cluster": cluster}}


def _acls(rights: Iterable[Right]) -> Iterator[Object]:
    """One rule for each resource, with its operations."""
    operations: dict[tuple[str, str], list[str]] = {}
    for right in rights:
        allowed = operations.setdefault((right.kind, right.name), [])
        if right.operation not in allowed:
            allowed.append(right.operation)
    for (kind, name), allowed in operations.items():
        pattern = "prefix" if name.endswith("*") else "literal"
        yield {
            "resource": {"type": _RESOURCES[kind], "name": name.removesuffix("*"), "patternType": pattern},
            "operations": allowed,
        }


def _lines(value: Object | Sequence[Any], indent: str) -> Iterator[str]:
    items = value.items() if isinstance(value, Mapping) else ((None, each) for each in value)
    for key, each in items:
        begin = f"{indent}-" if key is None else f"{indent}{key}:"
        if isinstance(each, str | int):
            yield f"{begin} {_scalar(each)}"
        elif key is None:
            first, *rest = _lines(each, f"{indent}  ")
            yield f"{begin} {first.lstrip()}"
            yield from rest
        else:
            yield begin
            yield from _lines(each, f"{indent}  ")


def _scalar(value: str | int) -> str:
    if isinstance(value, str) and _PLAIN.fullmatch(value) and value.lower() not in _NOT_TEXT:
        return value
    return json.dumps(value)
