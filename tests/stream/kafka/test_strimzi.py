"""Objects of Strimzi: the same topics and rights as Kafka itself would be asked for, in names that Kubernetes takes."""

import re
from typing import Any, Final

import jsonschema
import pytest
import yaml
from click.testing import CliRunner
from hypothesis import example, given
from hypothesis import strategies as st

from stream.commands.main import main
from stream.kafka import strimzi
from stream.kafka.names import Names
from stream.kafka.rights import COMMANDS, Right
from stream.kafka.topics import TopicSpec, plan, with_headers
from tests.crash.ports import free_port
from tests.deploy.custom_resources import SCHEMAS

Object = dict[str, Any]
KINDS: Final = {"topic": "topic", "group": "group", "transactionalId": "transactional id"}
ON: Final = Names("shop", "clicks", "lists")
NAMES: Final = st.from_regex(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,199}", fullmatch=True)


def printed(*arguments: str, **settings: str) -> list[Object]:
    """What the command prints, parsed. No Kafka listens where it is told to look."""
    environ = {
        "REC2PM_BOOTSTRAP_SERVERS": f"127.0.0.1:{free_port()}",
        "REC2PM_APP": ON.app,
        "REC2PM_INTERACTIONS_TOPIC": ON.interactions,
        "REC2PM_RECOMMENDATIONS_TOPIC": ON.recommendations,
        **settings,
    }
    result = CliRunner().invoke(main, ["topics", "create", "--output", "strimzi", *arguments], env=environ)
    assert result.exit_code == 0, result.output
    return list(yaml.safe_load_all(result.stdout))


def of_kind(objects: list[Object], kind: str) -> dict[str, Object]:
    return {each["metadata"]["name"]: each["spec"] for each in objects if each["kind"] == kind}


def rights_of(user: Object) -> set[tuple[str, str, str]]:
    """(kind, name with a star for a prefix, operation) of each of a user's rules."""
    return {
        (
            KINDS[acl["resource"]["type"]],
            acl["resource"]["name"] + "*" * (acl["resource"]["patternType"] == "prefix"),
            each,
        )
        for acl in user["authorization"]["acls"]
        for each in acl["operations"]
    }


def needed(rights: list[Right]) -> set[tuple[str, str, str]]:
    return {(right.kind, right.name, right.operation) for right in rights}


def test_every_object_is_what_strimzi_takes() -> None:
    objects = printed()

    for each in objects:
        jsonschema.validate(each, SCHEMAS[each["apiVersion"], each["kind"]])
    assert [each["kind"] for each in objects] == ["KafkaTopic"] * 5 + ["KafkaUser"] * 3
    assert {each["metadata"]["labels"]["strimzi.io/cluster"] for each in objects} == {"kafka"}
    assert {each["metadata"]["labels"]["strimzi.io/cluster"] for each in printed("--cluster", "eu")} == {"eu"}


@pytest.mark.parametrize(("partitions", "replication"), [(4, 1), (24, 3)])
def test_topics_are_those_of_the_plan(partitions: int, replication: int) -> None:
    topics = of_kind(printed("--partitions", str(partitions), "--replication", str(replication)), "KafkaTopic")

    planned = plan(ON.app, ON.interactions, ON.recommendations, partitions, replication)
    assert topics.keys() == {spec.name for spec in planned}
    for spec in planned:
        made = topics[spec.name]
        assert (made["partitions"], made["replicas"]) == (spec.partitions, spec.replication)
        config = {key: str(value) for key, value in made["config"].items()}
        # A dead letter is a record of the input with more headers.
        more = {"max.message.bytes": str(with_headers(1_048_588))} if spec.name == "shop.dead-letter" else {}
        assert config == {**spec.config, **more}


def test_users_have_the_rights_of_their_process_and_no_others() -> None:
    users = of_kind(printed(), "KafkaUser")

    assert {name: rights_of(user) for name, user in users.items()} == {
        "shop-worker": needed(COMMANDS["worker"](ON)),
        "shop-trainer": needed(COMMANDS["trainer --promote"](ON)),
        "shop-view": needed(COMMANDS["view"](ON)),
    }
    assert {user["authentication"]["type"] for user in users.values()} == {"scram-sha-512"}


@given(app=NAMES, interactions=NAMES, recommendations=NAMES)
@example(app="yes", interactions="1e3", recommendations="null")
@example(app="Shop_EU", interactions="shop-eu", recommendations="shop_eu")
@example(app="_", interactions="-", recommendations="a.-.b")
def test_any_name_is_printed_so_that_it_is_read_again(app: str, interactions: str, recommendations: str) -> None:
    planned = plan(app, interactions, recommendations, 2, None)
    objects = [strimzi.topic(spec, "kafka") for spec in planned]
    objects += strimzi.users(Names(app, interactions, recommendations), "kafka")

    read = list(yaml.safe_load_all("\n".join(strimzi.as_yaml(("a comment", each) for each in objects))))

    assert read == objects
    for each in read:
        jsonschema.validate(each, SCHEMAS[each["apiVersion"], each["kind"]])
        assert all(re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", part) for part in each["metadata"]["name"].split("."))
    topics = [each for each in read if each["kind"] == "KafkaTopic"]
    assert [each["spec"].get("topicName", each["metadata"]["name"]) for each in topics] == [s.name for s in planned]


@given(st.sets(NAMES, min_size=2, max_size=5))
@example({"shop_eu", "shop-eu", "Shop-eu"})
def test_two_topics_never_get_one_name(names: set[str]) -> None:
    made = {strimzi.topic(TopicSpec(name, "", 1, 1, "delete"), "kafka")["metadata"]["name"] for name in names}

    assert len(made) == len(names)
