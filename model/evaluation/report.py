"""An evaluation as a folder for people and programs: report.md, pictures, metrics.json. And as one table for a
terminal.
"""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
from rich import box
from rich.table import Table

from model.evaluation import markdown, memory_sections, plots, probes, ranking_metrics
from model.evaluation.baselines import POPULARITY
from model.evaluation.compare import Evaluation, Group, Mode, Ranking, Subject
from model.evaluation.significance import Estimate
from model.evaluation.user_groups import FEW

REPORT = "report.md"
METRICS = "metrics.json"


def write(evaluation: Evaluation, folder: Path, *, arguments: dict[str, Any], versions: dict[str, str]) -> Path:
    """Write report.md, its pictures and metrics.json. Files of these names are replaced.

    Args:
        arguments: the arguments of the command.
        versions: the versions of the program and of libraries, by name.

    Returns:
        The path of report.md.
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
    """What a reader must know before trusting the numbers, and which models are worse than popular items."""
    found = list(_worse_than_popularity(evaluation))
    N = evaluation.asked.targets
    for subject in evaluation.subjects:
        training = subject.manifest.training
        if training is None:
            found.append(
                f"{subject.reference}: its manifest does not say what it was trained on, so it may have seen the targets in training"
            )
            continue
        if subject.saw:
            found.append(
                f"{subject.reference} saw {subject.saw:,} of {N:,} targets ({subject.saw / N:.0%}) in training, so its numbers are too good. "
                f"It was trained until {_moment(training.until_ms)} ({training.split})"
            )
        if training.log != evaluation.log:
            found.append(
                f"{subject.reference} was trained on {training.log!r}, not on {evaluation.log!r}. Only times say whether it saw the targets"
            )
        if subject.outside:
            found.append(
                f"{subject.reference}: {subject.outside:,} of {N:,} targets ({subject.outside / N:.0%}) are not in its catalogue and "
                f"count as missed, such as {subject.outside_examples}"
            )
    if N < 100:
        found.append(f"there are only {N} targets, so the intervals are wide and inexact")
    return found


def _worse_than_popularity(evaluation: Evaluation) -> Iterable[str]:
    """The models that are worse than the popularity list by HR@10 or NDCG@10, in the mode of a worker."""
    mode = evaluation.modes[0]
    (popular,) = (ranking for ranking in mode.rankings if ranking.name == POPULARITY)
    for ranking in mode.rankings[: len(evaluation.subjects)]:
        pairs = [(each.hr[10].value, each.ndcg[10].value) for each in (ranking, popular)]
        (hr, ndcg), (popular_hr, popular_ndcg) = pairs
        if hr < popular_hr or ndcg < popular_ndcg:
            yield (
                f"{ranking.name} is worse than the popularity list: HR@10 {hr:.4f} against {popular_hr:.4f}, NDCG@10 {ndcg:.4f} against "
                f"{popular_ndcg:.4f} ({plots.mode_label(mode)}). Do not serve it: train longer, on a longer log or with another recipe"
            )


def table(evaluation: Evaluation) -> Table:
    """The main results: both modes, the test against the first model, and the checks of the memory."""
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
    found = warnings(evaluation)
    if found:
        yield "\n".join(["**Warnings:**", "", *(f"- {line}." for line in found)])
    yield "## Models"
    yield _models(evaluation.subjects)
    yield "\n".join(f"- *{name}*: {described}." for name, described in evaluation.baselines.items())
    yield "## Side by side"
    for mode in evaluation.modes:
        window = (
            "a model sees the whole history, and lists leave it out"
            if mode.window is None
            else f"a model sees the newest {mode.window} items, and lists leave out only those"
        )
        yield f"### {plots.mode_label(mode)}: {window}"
        yield _accuracy(mode)
        yield f"Compared with {mode.rankings[0].name}, user by user. p-values are corrected for {len(mode.rankings) - 1} comparisons (Holm):"
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
                yield f"NDCG@10 and HR@10, {plots.mode_label(mode)} (*: fewer than {FEW} users):"
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
    yield "## How the numbers were made"
    yield "\n".join(
        [
            f"- Split {options.split}, seed {options.seed}; targets from {_moment(asked.from_ms)} to {_moment(asked.until_ms)}.",
            "- A rank is over the whole catalogue of a model, never sampled. Of equal scores, the lower catalogue row comes first.",
            _who_knows_the_time(evaluation),
            "- Intervals are 95 %: Wilson's for HR, Student's t over users for the others. Coverage counts the first ten items of each list.",
            f"- {', '.join(f'{name} {version}' for name, version in versions.items())}.",
        ]
    )


def _who_knows_the_time(evaluation: Evaluation) -> str:
    knowing = [subject.reference for subject in evaluation.subjects if subject.uses_time]
    if not knowing:
        return "- No model knows when the target happened."
    return f"- In README-mode, only {', '.join(knowing)} knows when the target happened. In stream-mode, no model knows it."


def _what_was_asked(evaluation: Evaluation) -> Iterable[str]:
    asked, users = evaluation.asked, evaluation.options.users
    drawn = f", drawn with seed {evaluation.options.seed}" if users is not None and users <= asked.targets else ""
    yield f"{asked.interactions:,} interactions of {asked.users_in_log:,} users with {asked.items:,} items."
    yield f"{asked.split[0].upper()}{asked.split[1:]}. Histories are ordered by time, those of the same millisecond by file order."
    yield f"{asked.targets:,} targets, one per user{drawn}. Their sha256 is `{asked.sha256}`."
    yield (
        f"{asked.without_history:,} users have no history. {asked.repeated:,} targets are items that the user had before, which no list "
        f"without the history can have. {asked.new_items:,} targets are in no history."
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
                "not known" if training is None else f"{_moment(training.until_ms)}; {training.split}",
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
        estimates = [
            *(ranking.hr[k] for k in ranking_metrics.CUTS),
            *(ranking.ndcg[k] for k in ranking_metrics.CUTS if k > 1),
            ranking.mrr,
        ]
        share = f"{ranking.covered / ranking.catalogue:.1%} of {ranking.catalogue:,}"
        rows.append([ranking.name, *(markdown.interval(estimate) for estimate in estimates), share])
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
