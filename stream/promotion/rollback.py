"""A rollback: a promotion of the version before the current one. That version has served, so no gate checks it."""

from stream.promotion.record import Models, Promotion, new_id


def rollback(models: Models, alias: str, *, who: str, when_ms: int, why: str | None) -> Promotion | None:
    """The promotion that undoes the current one of an alias; None if there is nothing to return to."""
    current, before = models.aliases.get(alias), models.before(alias)
    if current is None or before is None:
        return None
    return Promotion(
        id=new_id(when_ms),
        alias=alias,
        version=before.version,
        uri=before.uri,
        sha256=before.sha256,
        memory_format=before.memory_format,
        segment_length=before.segment_length,
        bytes=before.bytes,
        previous=current.version,
        expected=current.id,
        who=who,
        when_ms=when_ms,
        why=why,
        kind="rollback",
    )
