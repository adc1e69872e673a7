"""JSON Schemas of the objects that operators define: the fields of theirs that are written here, and no others.

Kubernetes' own schemas do not have them. The names and types are those of the definitions of Prometheus Operator
(0.80), KEDA (2.16) and Strimzi (`KafkaTopic` v1beta2, `KafkaUser` v1).
"""

from typing import Any, Final

Schema = dict[str, Any]

_TEXT: Final = {"type": "string", "minLength": 1}
_TEXTS: Final = {"type": "object", "additionalProperties": {"type": "string"}}
_DURATION: Final = {"type": "string", "pattern": r"^(0|([0-9]+y)?([0-9]+w)?([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?)$"}


def _object(required: tuple[str, ...] = (), **properties: Schema) -> Schema:
    return {"type": "object", "additionalProperties": False, "required": list(required), "properties": properties}


def _list(items: Schema, least: int = 1) -> Schema:
    return {"type": "array", "minItems": least, "items": items}


def _whole(least: int = 0) -> Schema:
    return {"type": "integer", "minimum": least}


def _resource(spec: Schema) -> Schema:
    return _object(
        ("apiVersion", "kind", "metadata", "spec"),
        apiVersion=_TEXT,
        kind=_TEXT,
        metadata=_object(
            ("name",),
            name={"type": "string", "pattern": r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", "maxLength": 253},
            labels=_TEXTS,
            annotations=_TEXTS,
        ),
        spec=spec,
    )


_POD_MONITOR: Final = _object(
    ("selector", "podMetricsEndpoints"),
    selector=_object(("matchLabels",), matchLabels=_TEXTS),
    podMetricsEndpoints=_list(_object(("port",), port=_TEXT, path=_TEXT, interval=_DURATION)),
)

_RULE: Final = {
    **_object(
        ("expr",),
        alert=_TEXT,
        record=_TEXT,
        expr={"type": ["string", "integer"]},
        labels=_TEXTS,
        annotations=_TEXTS,
        keep_firing_for=_DURATION,
        **{"for": _DURATION},
    ),
    "oneOf": [{"required": ["alert"]}, {"required": ["record"]}],
}
_PROMETHEUS_RULE: Final = _object(
    ("groups",), groups=_list(_object(("name", "rules"), name=_TEXT, interval=_DURATION, rules=_list(_RULE)))
)

_BEHAVIOR: Final = _object(
    scaleDown=_object(
        stabilizationWindowSeconds={"type": "integer", "minimum": 0, "maximum": 3600},
        policies=_list(
            _object(
                ("type", "value", "periodSeconds"),
                type={"enum": ["Pods", "Percent"]},
                value=_whole(1),
                periodSeconds={"type": "integer", "minimum": 1, "maximum": 1800},
            )
        ),
    )
)
_SCALED_OBJECT: Final = _object(
    ("scaleTargetRef", "triggers"),
    scaleTargetRef=_object(("name",), apiVersion=_TEXT, kind=_TEXT, name=_TEXT),
    pollingInterval=_whole(1),
    minReplicaCount=_whole(),
    maxReplicaCount=_whole(1),
    advanced=_object(horizontalPodAutoscalerConfig=_object(behavior=_BEHAVIOR)),
    triggers=_list(
        _object(
            ("type", "metadata"),
            type=_TEXT,
            # KEDA takes texts alone here, also for numbers.
            metadata=_TEXTS,
            authenticationRef=_object(("name",), name=_TEXT, kind=_TEXT),
        )
    ),
)

_KAFKA_TOPIC: Final = _object(
    partitions=_whole(1),
    replicas={"type": "integer", "minimum": 1, "maximum": 32767},
    topicName=_TEXT,
    config={"type": "object"},
)
_OPERATIONS: Final = (
    "Read",
    "Write",
    "Create",
    "Delete",
    "Alter",
    "Describe",
    "AlterConfigs",
    "DescribeConfigs",
    "All",
)
_KAFKA_USER: Final = _object(
    authentication=_object(("type",), type={"enum": ["tls", "tls-external", "scram-sha-512"]}),
    authorization=_object(
        ("type", "acls"),
        type={"const": "simple"},
        acls=_list(
            _object(
                ("resource", "operations"),
                resource=_object(
                    ("type", "name"),
                    type={"enum": ["topic", "group", "cluster", "transactionalId"]},
                    name=_TEXT,
                    patternType={"enum": ["literal", "prefix"]},
                ),
                operations=_list({"enum": list(_OPERATIONS)}),
            )
        ),
    ),
)

SCHEMAS: Final = {
    ("monitoring.coreos.com/v1", "PodMonitor"): _resource(_POD_MONITOR),
    ("monitoring.coreos.com/v1", "PrometheusRule"): _resource(_PROMETHEUS_RULE),
    ("keda.sh/v1alpha1", "ScaledObject"): _resource(_SCALED_OBJECT),
    ("kafka.strimzi.io/v1", "KafkaTopic"): _resource(_KAFKA_TOPIC),
    ("kafka.strimzi.io/v1", "KafkaUser"): _resource(_KAFKA_USER),
}
"""(apiVersion, kind) → the schema of an object."""
