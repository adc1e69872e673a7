"""A Kafka that does not allow everything: the worker ends with one line that says what to grant."""

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)

from bench import null_model
from model.version.registry import Registry
from tests.crash import kafka
from tests.crash.ports import free_ports
from tests.integration.test_refusals import records, refusal
from tests.integration.test_worker import Application, create_topics
from tests.processes import wait_until

pytestmark = pytest.mark.isolation

AUTHORIZER = """
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
allow.everyone.if.no.acl.found=true
"""
SEES = (AclOperation.READ, AclOperation.DESCRIBE, AclOperation.DESCRIBE_CONFIGS)


@pytest.fixture(scope="module")
def bootstrap(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if not os.environ.get("KAFKA_HOME"):
        pytest.skip("KAFKA_HOME is not set: permissions need a Kafka that is started with an authorizer")
    direct, behind, proxy, controller = free_ports(4, random.Random())
    folder = tmp_path_factory.mktemp("guarded")
    with kafka.running(folder, kafka.Ports(direct, behind, proxy, controller), os.environ, AUTHORIZER) as guarded:
        yield guarded.direct


@pytest.fixture
def application(bootstrap: str, tmp_path: Path) -> Iterator[Application]:
    made = Application(bootstrap, tmp_path)
    create_topics(made)
    null_model.write(Registry(made.models), segment_length=10)
    yield made
    made.close()


def allowed(
    application: Application, kind: ResourceType, name: str, *operations: AclOperation, to: str = "ANONYMOUS"
) -> None:
    """From now on nobody may do anything else with it; everybody here is ANONYMOUS."""
    admin = AdminClient({"bootstrap.servers": application.bootstrap})
    for operation in operations:
        binding = AclBinding(
            kind, name, ResourcePatternType.LITERAL, f"User:{to}", "*", operation, AclPermissionType.ALLOW
        )
        for future in admin.create_acls([binding]).values():
            future.result(30)
    # It holds when the broker has heard of it from the controller.
    wait_until(lambda: len(admin.describe_acls(_any(name)).result(30)) >= len(operations), 30, "the ACLs are there")


def _any(name: str) -> object:
    from confluent_kafka.admin import AclBindingFilter  # type: ignore[attr-defined]

    return AclBindingFilter(
        ResourceType.ANY, name, ResourcePatternType.LITERAL, None, None, AclOperation.ANY, AclPermissionType.ANY
    )


def test_a_worker_that_may_not_write_state_says_so_and_takes_nothing(application: Application) -> None:
    allowed(application, ResourceType.TOPIC, f"{application.name}.changelog", *SEES)
    application.produce(records())
    said = refusal(application.start_worker(WORKER="one"))
    assert "TOPIC_AUTHORIZATION_FAILED" in said
    assert "kafka-acls.sh --add" in said
    assert application.committed() == 0


def test_a_worker_that_may_not_use_its_transactional_id_says_so(application: Application) -> None:
    allowed(application, ResourceType.TRANSACTIONAL_ID, f"{application.name}-one", AclOperation.DESCRIBE)
    application.produce(records())
    said = refusal(application.start_worker(WORKER="one"))
    assert "TRANSACTIONAL_ID_AUTHORIZATION_FAILED" in said
    assert "kafka-acls.sh --add" in said


def test_a_worker_that_may_not_join_its_group_says_so(application: Application) -> None:
    allowed(application, ResourceType.GROUP, application.name, AclOperation.DESCRIBE)
    application.produce(records())
    said = refusal(application.start_worker(WORKER="one"))
    assert "GROUP_AUTHORIZATION_FAILED" in said
    assert "kafka-acls.sh --add" in said


def test_topics_that_are_hidden_are_not_only_said_to_be_missing(application: Application) -> None:
    allowed(application, ResourceType.TOPIC, f"{application.name}.dead-letter", AclOperation.READ, to="somebody")
    said = application.rec2pm("worker")
    assert said.returncode == 2
    assert "these credentials may not see it" in said.stderr
