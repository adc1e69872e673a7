"""Promotions as a test makes them: the record itself, without the gate."""

import time
from collections.abc import Mapping
from typing import Any, Literal

from model.version.registry import ModelVersion
from stream.kafka import models_topic
from stream.promotion import record
from stream.promotion.record import Promotion


def promote(
    bootstrap: str,
    app: str,
    version: ModelVersion,
    *,
    alias: str = record.CHAMPION,
    kind: Literal["promote", "rollback"] = "promote",
    forced: tuple[str, ...] = (),
    why: str | None = None,
    **different: Any,
) -> Promotion:
    """Promote a version, whatever it is worth. `different`: fields of the record that do not agree with the version.

    Raises what `stream.kafka.models_topic.publish` raises.
    """
    kafka: Mapping[str, Any] = {"bootstrap.servers": bootstrap}
    current = models_topic.read_models(kafka, app).aliases.get(alias)
    now_ms = time.time_ns() // 1_000_000
    manifest = version.manifest()
    said = {
        "id": record.new_id(now_ms),
        "alias": alias,
        "version": version.reference,
        "uri": str(version.uri),
        "sha256": version.digest(),
        "memory_format": manifest.memory_format,
        "segment_length": manifest.segment_length,
        "bytes": sum(facts.bytes for facts in manifest.files.values()),
        "previous": None if current is None else current.version,
        "expected": None if current is None else current.id,
        "who": "tests",
        "when_ms": now_ms,
        "why": why,
        "kind": kind,
        "forced": forced,
    }
    promotion = Promotion(**{**said, **different})
    models_topic.publish(kafka, app, promotion)
    return promotion
