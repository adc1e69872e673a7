"""`rec2pm models rollback`: what it does, in words."""

from collections.abc import Iterator

from stream.promotion.record import Models, Promotion, in_words


def rollback_lines(models: Models, promotion: Promotion, *, dry_run: bool) -> Iterator[str]:
    """From where to where, and what becomes of users' memories."""
    current, before = models.aliases[promotion.alias], models.before(promotion.alias)
    yield (
        f"{'would roll' if dry_run else 'rolling'} {promotion.alias} back from {current.version} ({in_words(current)}) "
        f"to {promotion.version}" + ("" if before is None else f" ({in_words(before)})")
    )
    if promotion.memory_format == current.memory_format:
        yield f"both have the memory format {promotion.memory_format}: memories are read as they are"
    else:
        yield (
            f"the memory format changes from {current.memory_format} to {promotion.memory_format}: workers use what they "
            "kept of it (REC2PM_KEEP_FORMATS), and rebuild other memories from the kept segments"
        )
