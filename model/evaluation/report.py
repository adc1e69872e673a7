"""An evaluation as a folder that a person and a program can read: report.md, pictures, metrics.json; and as one table
for the terminal.
"""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
from rich import box
from rich.table import Table

from model.evaluation import markdown, memory_sections, plots, probes, ranking_metrics
from model.evaluation.compare import Evaluation, Group, Mode, Ranking, Subject
from model.evaluation.significance import Estimate
from model.evaluation.user_groups import FEW

REPORT = "report.md"
METRICS = "metrics.json"


def write(evaluation: Evaluation, folder: Path, *, arguments: dict[str, Any], versions: dict[str, str]) -> Path:
    """Write report.md, its pictures and metrics.json; what is there of these names is replaced.

    Args:
        arguments: what the command was called with.
        versions: program and libraries, by name.

    Returns:
        The report's path.
    """
    folder.mkdir(parents=True, exist_ok=True)
    found = {
        "arguments": arguments,
        "versions": versions,
        "warnings": warnings(evaluation),
        "verdicts": {subject.reference: probes.verdicts(subject.probes) for subject in evaluation.subjects},
        **{name: getattr(evaluation, name) for name in evaluation.__dataclass_fields__},
    }
    (folder / METRICS).write_bytes(msgspec.json.format(msgspec.json.encode(found), indent=2) + b"\n")
    pictures = {
        name: f"![{caption}]({name})\n\n*{caption}*" for name, caption in plots.draw(evaluation, folder).items()
    }
    (folder / REPORT).write_text("\n\n".join(_sections(evaluation, pictures, versions)) + "\n", encoding="utf-8")
    return folder / REPORT


def warnings(evaluation: Evaluation) -> list[str]:
    """What makes the numbers mean something else than they seem to."""
    found = []
    N = evaluation.asked.targets
    for subject in evaluation.subjects:
        training = subject.manifest.training
        if training is None:
            found.append(
                f"{subject.reference}: its manifest does not say what it was trained on; it may have seen the targets in training"
            )
            continue
        if subject.saw:
            found.append(
                f"{subject.reference} saw the targets in training: {subject.saw:,} of {N:,} ({subject.saw / N:.0%}); it was trained until "
                f"{_moment(training.until_ms)} ({training.split}). Its numbers are too good"
            )
        if training.log != evaluation.log:
            found.append(
                f"{subject.reference} was trained on {training.log!r}, not {evaluation.log!r}: whether it saw the targets is told by time alone"
            )
        if subject.outside:
            found.append(
                f"{subject.reference}: {subject.outside:,} of {N:,} targets are not in its catalogue and count as missed"
            )
    if N < 100:
        found.append(f"{N} targets: the intervals are wide, and rough")
    return found


def table(evaluation: Evaluation) -> Table:
    """Everything in one glance: both modes, the test against the first model, and the checks of its memory."""
    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    shown.add_column("model")
    for mode in evaluation.modes:
        shown.add_column(f"HR@10\n{plots.mode_label(mode)}", justify="right")
        shown.add_column("NDCG@10\n95 %", justify="right")
    shown.add_column("MRR", justify="right")
    shown.add_column("items\nshown", justify="right")
    shown.add_column("p against\nthe first", justify="right")
    shown.add_column("memory\nchecks")
    first = evaluation.modes[0]
    for at, ranking in enumerate(first.rankings):
        accuracy = []
        for mode in evaluation.modes:
            same = mode.rankings[at]
            accuracy += [f"{same.hr[10].value:.4f}", f"{same.ndcg[10].value:.4f} ±{_half(same.ndcg[10]):.4f}"]
        pair = ranking.against_first
        shown.add_row(
            ranking.name,
            *accuracy,
            f"{ranking.mrr.value:.4f}",
            f"{ranking.covered / ranking.catalogue:.0%}",
            ""
            if pair is None
            else f"{'+' if pair.ndcg_at_10.value >= 0 else '−'} {markdown.p_value(pair.ndcg_p_holm)}",
            _checked(evaluation.subjects[at]) if at < len(evaluation.subjects) else "",
        )
    return shown


def _sections(evaluation: Evaluation, pictures: dict[str, str], versions: dict[str, str]) -> Iterable[str]:
    asked, options = evaluation.asked, evaluation.options
    yield f"# Offline evaluation on {evaluation.log}"
    yield "\n".join(f"- {line}" for line in _what_was_asked(evaluation))
    told = warnings(evaluation)
    if told:
        yield "\n".join(["**Mind:**", "", *(f"- {line}." for line in told)])
    yield "## Models"
    yield _models(evaluation.subjects)
    yield "\n".join(f"- *{name}*: {described}." for name, described in evaluation.baselines.items())
    yield "## Side by side"
    for mode in evaluation.modes:
        window = (
            "the whole history is seen and left out of the lists"
            if mode.window is None
            else f"the newest {mode.window} items are seen, and only they are left out of the lists"
        )
        yield f"### {plots.mode_label(mode)}: {window}"
        yield _accuracy(mode)
        yield f"Against {mode.rankings[0].name}, user by user; p-values corrected for {len(mode.rankings) - 1} comparisons (Holm):"
        yield _against(mode)
    yield pictures["accuracy.png"]
    for title, picture, name in (
        ("By history length", "history.png", "by_history"),
        ("By position after the last fold", "position.png", "by_position"),
        ("By number of folds", "folds.png", "by_folds"),
    ):
        if any(getattr(ranking, name) for ranking in evaluation.modes[0].rankings):
            yield f"## {title}"
            if picture in pictures:
                yield pictures[picture]
            for mode in evaluation.modes:
                yield f"NDCG@10 and HR@10, {plots.mode_label(mode)}; * fewer than {FEW} users:"
                yield _groups(
                    [(ranking, getattr(ranking, name)) for ranking in mode.rankings if getattr(ranking, name)]
                )
    yield "## Preference memory"
    yield "\n".join(
        f"- **{markdown.verdict(verdict.passed)}** {subject.reference}: {verdict.check}: {verdict.why}."
        for subject in evaluation.subjects
        for verdict in probes.verdicts(subject.probes)
    )
    yield from memory_sections.shuffled(evaluation, pictures)
    yield from memory_sections.one_time(evaluation)
    yield from memory_sections.drift(evaluation, pictures)
    yield "## How it was made"
    yield "\n".join(
        [
            f"- Split {options.split}, seed {options.seed}; targets from {_moment(asked.from_ms)} to {_moment(asked.until_ms)}.",
            "- Ranks are over each model's whole catalogue, never sampled; equal scores are ordered by catalogue row.",
            _who_is_told(evaluation),
            "- Intervals are 95 %: Wilson's for HR, Student's t over users for the others. Coverage is over the lists' first ten.",
            f"- {', '.join(f'{name} {version}' for name, version in versions.items())}.",
        ]
    )


def _who_is_told(evaluation: Evaluation) -> str:
    told = [subject.reference for subject in evaluation.subjects if subject.uses_time]
    if not told:
        return "- No model is told when the target happened."
    return f"- In README-mode {', '.join(told)} knows when the target happened, which others do not; in stream-mode no model does."


def _what_was_asked(evaluation: Evaluation) -> Iterable[str]:
    asked, users = evaluation.asked, evaluation.options.users
    drawn = f", drawn with seed {evaluation.options.seed}" if users is not None and users <= asked.targets else ""
    yield f"{asked.interactions:,} interactions of {asked.users_in_log:,} users with {asked.items:,} items."
    yield f"{asked.split[0].upper()}{asked.split[1:]}. Histories are ordered by time; of the same millisecond, in file order."
    yield f"{asked.targets:,} targets, one a user{drawn}; sha256 `{asked.sha256}`."
    yield (
        f"{asked.without_history:,} users have no history; {asked.repeated:,} targets are items that the user had before, which lists without "
        f"the history cannot have; {asked.new_items:,} targets are in no history at all."
    )


def _models(subjects: Sequence[Subject]) -> str:
    rows = []
    for subject in subjects:
        manifest, training = subject.manifest, subject.manifest.training
        rows.append(
            [
                subject.reference,
                manifest.kind,
                str(manifest.segment_length),
                f"{4 * manifest.state_floats:,}",
                f"{manifest.n_items:,}",
                "not said" if training is None else f"{_moment(training.until_ms)}; {training.split}",
                "not known" if subject.saw is None else f"**{subject.saw:,}**" if subject.saw else "none",
                f"{subject.outside:,}",
            ]
        )
    heads = [
        "model",
        "kind",
        "segment",
        "memory, bytes",
        "catalogue",
        "trained until",
        "targets seen in training",
        "targets outside the catalogue",
    ]
    return markdown.table(heads, rows, left=(0, 1, 5))


def _accuracy(mode: Mode) -> str:
    heads = [
        "",
        *(f"HR@{k}" for k in ranking_metrics.CUTS),
        *(f"NDCG@{k}" for k in ranking_metrics.CUTS if k > 1),
        "MRR",
        "coverage",
    ]
    rows = []
    for ranking in mode.rankings:
        told = [
            *(ranking.hr[k] for k in ranking_metrics.CUTS),
            *(ranking.ndcg[k] for k in ranking_metrics.CUTS if k > 1),
            ranking.mrr,
        ]
        share = f"{ranking.covered / ranking.catalogue:.1%} of {ranking.catalogue:,}"
        rows.append([ranking.name, *(markdown.interval(estimate) for estimate in told), share])
    return markdown.table(heads, rows)


def _against(mode: Mode) -> str:
    heads = [
        "",
        "NDCG@10, difference",
        "p (t-test)",
        "only it hits @10",
        f"only {mode.rankings[0].name} hits",
        "p (McNemar)",
    ]
    rows = []
    for ranking in mode.rankings:
        if (pair := ranking.against_first) is not None:
            difference = f"{pair.ndcg_at_10.value:+.4f} [{pair.ndcg_at_10.low:+.4f}, {pair.ndcg_at_10.high:+.4f}]"
            rows.append(
                [
                    ranking.name,
                    difference,
                    markdown.p_value(pair.ndcg_p_holm),
                    f"{pair.only_second:,}",
                    f"{pair.only_first:,}",
                    markdown.p_value(pair.hits_p_holm),
                ]
            )
    return markdown.table(heads, rows)


def _groups(rankings: Sequence[tuple[Ranking, Sequence[Group]]]) -> str:
    labels = plots.labels_in_order(groups for _, groups in rankings)
    rows = []
    for ranking, groups in rankings:
        by_label = {group.label: group for group in groups}
        rows.append([ranking.name, *(_group(by_label.get(label)) for label in labels)])
    return markdown.table(["", *labels], rows)


def _group(group: Group | None) -> str:
    if group is None:
        return ""
    return f"{group.ndcg_at_10.value:.4f}, {group.hr_at_10.value:.4f} (n = {group.targets:,}{'*' if group.targets < FEW else ''})"


def _half(estimate: Estimate) -> float:
    return (estimate.high - estimate.low) / 2


def _checked(subject: Subject) -> str:
    return " ".join(markdown.verdict(verdict.passed) for verdict in probes.verdicts(subject.probes))


def _moment(epoch_ms: int) -> str:
    return datetime.fromtimestamp(epoch_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
