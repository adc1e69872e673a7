"""`rec2pm models show`: everything that a manifest says, in words."""

from collections.abc import Iterator

import msgspec

from stream.commands.models.facts import FLOAT_BYTES, Facts, flat, megabytes, share
from stream.commands.models.table import INDENT, table
from stream.commands.output import counted, json_line
from stream.promotion.record import iso


def show_lines(version: Facts) -> Iterator[str]:
    """A title, a line for each subject, then the files and the configuration."""
    yield version.reference
    subjects = list(_subjects(version))
    width = max(len(name) for name, _ in subjects)
    for name, words in subjects:
        yield f"{name.ljust(width)}  {words}"
    yield f"files ({megabytes(version.bytes)})"
    rows = [(name, f"{file.bytes:,}", file.sha256) for name, file in sorted(version.manifest.files.items())]
    for line in table(("FILE", "BYTES", "SHA-256"), rows, frozenset({"BYTES"})):
        yield INDENT + line
    yield "configuration"
    for line in table(
        ("FIELD", "VALUE"), [(name, json_line(value)) for name, value in sorted(flat(version.manifest.config).items())]
    ):
        yield INDENT + line


def show_json(version: Facts) -> str:
    """The manifest, and where it is."""
    return json_line(
        {**msgspec.to_builtins(version.manifest), "uri": version.uri, "sha256": version.sha256, "bytes": version.bytes}
    )


def _subjects(version: Facts) -> Iterator[tuple[str, str]]:
    manifest, training, metrics = version.manifest, version.manifest.training, version.manifest.metrics
    yield "place", version.uri
    yield "sha256", version.sha256
    yield "kind", manifest.kind
    yield "memory format", manifest.memory_format
    yield "memory", f"{manifest.state_floats} floats, {FLOAT_BYTES * manifest.state_floats:,} bytes per user"
    yield "segments", f"of {manifest.segment_length} interactions"
    yield "catalogue", f"{counted(manifest.n_items, 'item')}, sha256 {manifest.catalogue_sha256}"
    yield "weights", f"{version.parameters():,} parameters, weights_sha256 {manifest.weights_sha256}"
    program = manifest.program
    yield "program", f"{program.kind} of torch {program.torch_version}, written by rec2pm {manifest.program_version}"
    if training is None:
        yield "training", "not trained on a log"
    else:
        yield (
            "log",
            f"{training.log}: {training.rows:,} interactions of {training.users:,} users with {training.items:,} items",
        )
        yield "trained on", f"interactions from {iso(training.from_ms)} until {iso(training.until_ms)}"
        yield "held out", training.split
        ended = "" if training.ended is None else f", ended by {training.ended}"
        yield (
            "training",
            (
                f"{counted(training.epochs, 'epoch')}, the best was {training.best_epoch}; {training.samples:,} windows in "
                f"{training.wall_s:.0f} s, seed {training.seed}{ended}"
            ),
        )
    if metrics is not None:
        popular = "" if metrics.popularity_ndcg_at_10 is None else f"NDCG@10 {share(metrics.popularity_ndcg_at_10)}, "
        yield (
            "accuracy",
            (
                f"NDCG@10 {share(metrics.ndcg_at_10)}, HR@10 {share(metrics.hr_at_10)} on {metrics.targets:,} targets; "
                f"popular items: {popular}HR@10 {share(metrics.popularity_hr_at_10)}"
            ),
        )
    if (kept := manifest.kept_format) is not None:
        yield (
            "keeps format",
            (
                f"of {kept.of}: NDCG@10 {share(kept.ndcg_at_10_kept)} with memories that it wrote, "
                f"{share(kept.ndcg_at_10_own)} with own ones, {kept.users:,} users"
            ),
        )
    if (forgotten := manifest.forgotten) is not None:
        offsets = ", ".join(f"{number}: {offset}" for number, offset in sorted(forgotten.until.items(), key=_number))
        yield "forgotten", f"{counted(forgotten.users, 'user')}; null values obeyed up to offset ({offsets or 'none'})"


def _number(item: tuple[str, int]) -> int:
    return int(item[0])
