"""`rec2pm models list`: the versions of the registry, with the aliases that name them."""

from collections.abc import Iterator, Sequence

from stream.commands.models.facts import Facts, megabytes, share
from stream.commands.models.table import table
from stream.commands.output import json_line
from stream.promotion.record import Models, Promotion, iso


def listing_lines(versions: Sequence[Facts], models: Models | None) -> Iterator[str]:
    """A row for each version, then the aliases whose version is not among them."""
    heads = ("VERSION", "ALIASES", "KIND", "MEMORY FORMAT", "SIZE", "NDCG@10", "TRAINED FROM", "UNTIL")
    rows = []
    for each in versions:
        manifest, training = each.manifest, each.manifest.training
        rows.append(
            (
                each.reference,
                ",".join(_aliases(each, models)) or "-",
                manifest.kind,
                manifest.memory_format.removeprefix(f"{manifest.kind}/"),
                megabytes(each.bytes),
                "-" if manifest.metrics is None else share(manifest.metrics.ndcg_at_10),
                "-" if training is None else _day(training.from_ms),
                "-" if training is None else _day(training.until_ms),
            )
        )
    if rows:
        yield from table(heads, rows, frozenset({"SIZE", "NDCG@10"}))
    for promotion in _elsewhere(versions, models):
        yield f"{promotion.alias} is {promotion.version}, which is not in this registry: it was promoted from {promotion.uri}"


def listing_json(versions: Sequence[Facts], models: Models | None) -> Iterator[str]:
    """A line for each version; `aliases` is null if Kafka was not asked with success."""
    for each in versions:
        manifest, training = each.manifest, each.manifest.training
        yield json_line(
            {
                "version": each.reference,
                "aliases": None if models is None else _aliases(each, models),
                "kind": manifest.kind,
                "memory_format": manifest.memory_format,
                "bytes": each.bytes,
                "ndcg_at_10": None if manifest.metrics is None else manifest.metrics.ndcg_at_10,
                "trained_from": None if training is None else iso(training.from_ms),
                "trained_until": None if training is None else iso(training.until_ms),
                "items": manifest.n_items,
                "uri": each.uri,
                "sha256": each.sha256,
            }
        )


def _day(epoch_ms: int) -> str:
    return iso(epoch_ms).partition("T")[0]


def _aliases(version: Facts, models: Models | None) -> list[str]:
    """The aliases that name this very version: number and SHA-256."""
    found = {} if models is None else models.aliases
    return sorted(alias for alias, each in found.items() if _is(each, version))


def _is(promotion: Promotion, version: Facts) -> bool:
    return promotion.version == version.reference and promotion.sha256 == version.sha256


def _elsewhere(versions: Sequence[Facts], models: Models | None) -> list[Promotion]:
    found = {} if models is None else models.aliases
    return [each for each in found.values() if not any(_is(each, version) for version in versions)]
