"""`rec2pm models diff`: what changes between two versions, and what that means for users' memories."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from model.ids import Id
from model.version.manifest import Metrics, Training
from model.version.trial import Trial
from stream.commands.models.facts import FLOAT_BYTES, Facts, flat, megabytes, share
from stream.commands.models.table import INDENT
from stream.commands.output import json_line
from stream.promotion.record import iso

EXAMPLES: Final = 5
NOT_SET: Final = "not set"


@dataclass(frozen=True, slots=True)
class Difference:
    """Two versions side by side. `new` and `gone`: items of only one catalogue, in its order."""

    old: Facts
    new: Facts
    config: Mapping[str, tuple[Any, Any]]
    items_new: Sequence[Id]
    items_gone: Sequence[Id]
    parameters: tuple[int, int]
    trials: Mapping[str, Trial] = field(default_factory=dict)
    """`old` and `new`, if they were measured."""

    @property
    def same_format(self) -> bool:
        return self.old.manifest.memory_format == self.new.manifest.memory_format

    @property
    def same_segments(self) -> bool:
        return self.old.manifest.segment_length == self.new.manifest.segment_length


def difference(old: Facts, new: Facts, trials: Mapping[str, Trial]) -> Difference:
    before, after = flat(old.manifest.config), flat(new.manifest.config)
    items_before, items_after = old.catalogue(), new.catalogue()
    known_before, known_after = set(items_before), set(items_after)
    return Difference(
        old,
        new,
        {
            name: (before.get(name, NOT_SET), after.get(name, NOT_SET))
            for name in sorted(before.keys() | after.keys())
            if before.get(name, NOT_SET) != after.get(name, NOT_SET)
        },
        [item for item in items_after if item not in known_before],
        [item for item in items_before if item not in known_after],
        (old.parameters(), new.parameters()),
        trials,
    )


def difference_lines(found: Difference) -> Iterator[str]:
    """From what serves users most directly, to what it costs."""
    old, new = found.old.manifest, found.new.manifest
    yield f"{found.old.reference} → {found.new.reference}"
    yield f"memory format: {_format_words(found)}"
    if not found.same_segments:
        yield (
            f"segment length: {old.segment_length} → {new.segment_length}. Workers with stored state refuse this: what they "
            "store fits only one of them"
        )
    yield (
        f"catalogue: {old.n_items:,} → {new.n_items:,} items; {len(found.items_new):,} new, {len(found.items_gone):,} gone"
    )
    for what, items in (("new", found.items_new), ("gone", found.items_gone)):
        if items:
            more = ", …" if len(items) > EXAMPLES else ""
            yield f"{INDENT}{what}: {', '.join(map(str, items[:EXAMPLES]))}{more}"
    yield from _accuracy(old.metrics, new.metrics)
    yield from _trained(old.training, new.training)
    yield "configuration:" if found.config else "configuration: the same"
    for name, (before, after) in found.config.items():
        yield f"{INDENT}{name}: {_value(before)} → {_value(after)}"
    yield f"size: {changed(found.old.bytes, found.new.bytes, megabytes)}"
    yield f"parameters: {changed(*found.parameters, lambda count: f'{count:,}')}"
    floats = (FLOAT_BYTES * old.state_floats, FLOAT_BYTES * new.state_floats)
    yield f"memory per user: {changed(*floats, lambda size: f'{size:,} bytes')}"
    yield from _measured(found.trials)


def _format_words(found: Difference) -> str:
    old, new = found.old.manifest.memory_format, found.new.manifest.memory_format
    if found.same_format:
        return f"the same, {old}. Users' memories are read as they are"
    return (
        f"{old} → {new}. Each user's memory is rebuilt from the kept segments (REC2PM_KEEP_SEGMENTS) when they come, or "
        "before that in the background (REC2PM_REFOLD_PER_S)"
    )


def _accuracy(old: Metrics | None, new: Metrics | None) -> Iterator[str]:
    if old is None or new is None:
        yield "accuracy: not measured for both"
        return
    yield (
        f"accuracy: NDCG@10 {share(old.ndcg_at_10)} → {share(new.ndcg_at_10)}, HR@10 {share(old.hr_at_10)} → "
        f"{share(new.hr_at_10)}, each on its own targets ({old.targets:,} and {new.targets:,})"
    )


def _trained(old: Training | None, new: Training | None) -> Iterator[str]:
    def words(training: Training | None) -> str:
        if training is None:
            return "not trained on a log"
        return f"{iso(training.from_ms)} … {iso(training.until_ms)}, {training.rows:,} interactions of {training.log}"

    if words(old) == words(new):
        yield f"trained on: the same, {words(old)}"
        return
    yield "trained on:"
    yield f"{INDENT}{words(old)}"
    yield f"{INDENT}→ {words(new)}"


def _value(value: Any) -> str:
    return NOT_SET if value == NOT_SET else json_line(value)


def _measured(trials: Mapping[str, Trial]) -> Iterator[str]:
    if not trials:
        yield "speed: not measured (--measure)"
        return
    old, new = trials["old"], trials["new"]
    if old.why is not None or new.why is not None:
        for name, trial in trials.items():
            if trial.why is not None:
                yield f"speed: the {name} one cannot be tried: {trial.why}"
        return
    yield f"one list, 95 %: {changed(old.p95_ms or 0, new.p95_ms or 0, lambda ms: f'{ms:.2f} ms')}"
    yield f"load and warm-up: {changed(_ready_s(old), _ready_s(new), lambda s: f'{s:.1f} s')}"
    yield f"memory of the process: {changed(old.rss_bytes or 0, new.rss_bytes or 0, megabytes)}"


def _ready_s(trial: Trial) -> float:
    return (trial.load_s or 0) + (trial.warm_up_s or 0)


def changed(old: Any, new: Any, words: Callable[[Any], str]) -> str:
    """`12.0 MB → 15.0 MB (+25 %)`; one of them if both read the same."""
    if words(old) == words(new):
        return f"the same, {words(old)}"
    percent = f" ({100 * (new - old) / old:+.0f} %)" if old else ""
    return f"{words(old)} → {words(new)}{percent}"


def difference_json(found: Difference) -> str:
    old, new = found.old.manifest, found.new.manifest
    return json_line(
        {
            "old": found.old.reference,
            "new": found.new.reference,
            "same_memory_format": found.same_format,
            "memory_format": [old.memory_format, new.memory_format],
            "segment_length": [old.segment_length, new.segment_length],
            "config": found.config,
            "items_new": found.items_new,
            "items_gone": found.items_gone,
            "metrics": [old.metrics, new.metrics],
            "training": [old.training, new.training],
            "bytes": [found.old.bytes, found.new.bytes],
            "parameters": found.parameters,
            "state_floats": [old.state_floats, new.state_floats],
            "trials": found.trials or None,
        }
    )
