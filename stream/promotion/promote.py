"""A promotion: find the version, run the gate, write the record.

`rec2pm models promote` and the trainer both do this.
"""

import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from model.version import storage
from model.version.registry import ModelVersion, Registry
from stream.errors import GateFailed
from stream.kafka.admin import admin_client
from stream.kafka.models_topic import publish, read_models
from stream.promotion import mlflow
from stream.promotion.checks.files import Fetched
from stream.promotion.gate import NOT_FORCED, Champion, Rules, gate
from stream.promotion.newest import newest_interactions
from stream.promotion.places import places
from stream.promotion.record import ALIAS, CHAMPION, Check, Promotion, new_id
from stream.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What somebody wants to promote.

    `reference`: NAME, NAME@VERSION or NAME@VERSION#SHA256 of the registry, or models:/… of MLflow. `force` passes over
    failed checks, and `why` is written down. `log`: `user_id`, `item_id`, `timestamp` (ms), for the check of quality.
    """

    reference: str
    who: str
    alias: str = CHAMPION
    why: str | None = None
    force: bool = False
    log: pl.LazyFrame | None = None
    rules: Rules = field(default_factory=Rules)

    def __post_init__(self) -> None:
        if re.fullmatch(ALIAS, self.alias) is None:
            raise ValueError(f"{self.alias!r} cannot be an alias: readers would pass its records over")


@dataclass(frozen=True, slots=True)
class Promoted:
    """`promotion` is the record, `before` the one that it replaces; None for the first of its alias. `warnings`: what
    did not work after the record was written.
    """

    promotion: Promotion
    before: Promotion | None
    warnings: Sequence[str] = ()

    @property
    def same_format(self) -> bool | None:
        """Whether both read the same memories; None for the first promotion."""
        return None if self.before is None else self.before.memory_format == self.promotion.memory_format


def promote(
    settings: Settings,
    kafka: Mapping[str, Any],
    wish: Wish,
    *,
    now_ms: Callable[[], int],
    heard: Callable[[Check], None],
    dry_run: bool = False,
) -> Promoted:
    """Run the gate, and promote the version if it passes.

    Args:
        kafka: options of the client, `bootstrap.servers` among them.
        now_ms: the time of the record, epoch ms: asked when the gate is passed.
        heard: called with each check of the gate when it is done.
        dry_run: write nothing.

    Raises:
        ModelNotFound: there is no such version.
        GateFailed: a check failed, and the wish does not pass over it. Nothing was promoted.
        PromotionConflict: somebody else promoted a version meanwhile.
        MlflowUnusable: MLflow does not give the version.
        KafkaUnusable: a topic cannot be read or written.
    """
    registry = Registry(settings.models)
    origin = mlflow.resolved(wish.reference, registry) if mlflow.is_reference(wish.reference) else None
    candidate = registry.resolve(wish.reference) if origin is None else origin.version
    before = read_models(kafka, settings.app).aliases.get(wish.alias)
    admin = admin_client(settings)
    with tempfile.TemporaryDirectory(prefix="rec2pm-gate-") as folder:
        checks, found = gate(
            candidate,
            None if before is None else _champion(before, registry),
            folder=Path(folder),
            newest=lambda: newest_interactions(admin, kafka, settings),
            log=wish.log,
            rules=wish.rules,
            heard=heard,
        )
    failed = tuple(check.name for check in checks if check.result == "failed")
    if found is None or (failed and not wish.force):
        raise GateFailed(_refusal(candidate.reference, failed))
    promotion = _record(candidate, found, before, wish, failed, checks, now_ms())
    if dry_run:
        return Promoted(promotion, before)
    publish(kafka, settings.app, promotion)
    return Promoted(promotion, before, () if origin is None else mlflow.mirrored(origin, promotion))


def absolute(uri: str) -> str:
    """A folder as every process of this machine finds it; a URL as it is."""
    folder = storage.local(uri)
    return uri if folder is None else str(folder.absolute())


def _champion(promotion: Promotion, registry: Registry) -> Champion:
    return Champion(promotion.version, places(promotion, registry), promotion.sha256, promotion.segment_length)


def _record(
    candidate: ModelVersion,
    found: Fetched,
    before: Promotion | None,
    wish: Wish,
    failed: tuple[str, ...],
    checks: Sequence[Check],
    now_ms: int,
) -> Promotion:
    manifest = found.manifest
    return Promotion(
        id=new_id(now_ms),
        alias=wish.alias,
        version=manifest.reference,
        uri=absolute(candidate.uri),
        sha256=found.sha256,
        memory_format=manifest.memory_format,
        segment_length=manifest.segment_length,
        bytes=found.bytes,
        previous=None if before is None else before.version,
        expected=None if before is None else before.id,
        who=wish.who,
        when_ms=now_ms,
        why=wish.why,
        forced=failed,
        gate=tuple(checks),
    )


def _refusal(reference: str, failed: Sequence[str]) -> str:
    not_forced = sorted(NOT_FORCED.intersection(failed))
    what = f"{reference} is not promoted: {', '.join(failed)} failed"
    if not_forced:
        return f"{what}. --force does not pass over {', '.join(not_forced)}: every worker would refuse it"
    return f"{what}. --force --why TEXT passes over that, and is written down"
