"""Rights as rules of Kafka's authorizer."""

from confluent_kafka.admin import AclOperation, ResourcePatternType, ResourceType  # type: ignore[attr-defined]

from stream.kafka.rights import Right
from tests.secured.kafka import Rule

_KINDS = {
    "topic": ResourceType.TOPIC,
    "group": ResourceType.GROUP,
    "transactional id": ResourceType.TRANSACTIONAL_ID,
}
_OPERATIONS = {
    "Read": AclOperation.READ,
    "Write": AclOperation.WRITE,
    "Describe": AclOperation.DESCRIBE,
    "DescribeConfigs": AclOperation.DESCRIBE_CONFIGS,
    "Create": AclOperation.CREATE,
    "Delete": AclOperation.DELETE,
}


def rule(right: Right) -> Rule:
    """The rule that grants a right, and no more."""
    prefixed = right.name.endswith("*")
    pattern = ResourcePatternType.PREFIXED if prefixed else ResourcePatternType.LITERAL
    return _KINDS[right.kind], right.name.removesuffix("*"), pattern, _OPERATIONS[right.operation]
