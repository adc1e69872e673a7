"""A replay's report as blocks: what was run, whether the log is sound, the figures, and how they were made."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import PurePath
from typing import Any

from model.evaluation import markdown
from model.evaluation.replay.baselines import REFRESH
from model.evaluation.replay.divisions import DIVISIONS, Division
from model.evaluation.replay.document import Alert, Block, Bullets, Heading, Picture, Table, Text
from model.evaluation.replay.found import Found, Part
from model.evaluation.replay.measures import CUTS
from model.evaluation.replay.pictures import width
from model.evaluation.significance import BOOTSTRAPS, Estimate
from model.evaluation.user_groups import FEW

_NONE = "–"


def title(found: Found) -> str:
    log = found.head.get("log")
    return f"Replay of {PurePath(str(log)).name}" if log else "Replay"


def sections(found: Found, pictures: Mapping[str, Picture]) -> Iterable[Block]:
    counts = found.counts
    yield Text(
        f"{counts.interactions:,} interactions of {counts.users:,} users with {counts.items:,} items, from {_moment(counts.from_ms)} "
        f"to {_moment(counts.until_ms)}. Before each interaction, every model was asked for a list, as a worker would make it; the "
        "figures say where the item of the interaction was in it."
    )
    for red in (True, False):
        if lines := [each.words for each in found.warnings if each.red is red]:
            yield Alert(red, lines)
    yield from _log(found)
    yield from _accuracy(found, pictures)
    yield from _users(found)
    yield from _beyond(found)
    yield from _unknown(found)
    yield from _leaks(found)
    yield from _over_time(found, pictures)
    for division in DIVISIONS:
        yield from _division(found, division, pictures)
    yield from _cost(found, pictures)
    yield from _run(found)
    yield from _method(found)


def _accuracy(found: Found, pictures: Mapping[str, Picture]) -> Iterable[Block]:
    yield Heading("Accuracy")
    yield Text(
        f"Over {_scored(found):,} interactions of {found.counts.scored_users or found.counts.users:,} users. Brackets: 95 % over users. "
        "With one target, HR@k is recall@k. MRR looks at the first 100."
    )
    yield Table(
        ["", *(f"HR@{k}" for k in CUTS)],
        [
            [
                each.name,
                *(_interval(each.accuracy.hr_at_10) if k == 10 else _number(each.accuracy.hr[k]) for k in CUTS),
            ]
            for each in found.rankings
        ],
    )
    ndcg = [k for k in CUTS if k > 1]
    yield Table(
        ["", *(f"NDCG@{k}" for k in ndcg), "MRR"],
        [
            [
                each.name,
                *(_interval(each.accuracy.ndcg_at_10) if k == 10 else _number(each.accuracy.ndcg[k]) for k in ndcg),
                _number(each.accuracy.mrr),
            ]
            for each in found.rankings
        ],
    )
    yield from _picture(pictures, "accuracy")
    yield Bullets([f"**{each.name}**: {each.description}." for each in found.rankings if not each.is_model])


def _log(found: Found) -> Iterable[Block]:
    counts = found.counts
    yield Heading("Is the log sound?")
    if found.audit:
        yield Table(
            ["check", "verdict", "figure", ""],
            [[each.name, each.verdict, each.figure, each.words] for each in found.audit],
            left=(0, 1, 2, 3),
        )
    asked = "the last one of each user" if found.protocol == "last-out" else "every one"
    yield Bullets(
        [
            f"Asked about: {counts.asked:,} interactions ({asked}).",
            (
                f"Without a list: {counts.without_list:,} ({_percent(counts.without_list, counts.asked)}). A user's first interaction has "
                "none; lists made at longer intervals leave more without one."
            ),
            f"In the training range of a model: {counts.leaked:,} ({_percent(counts.leaked, counts.asked)}).",
            f"Scored: {counts.scored:,} ({_percent(counts.scored, counts.asked)}) of {counts.scored_users:,} users.",
            (
                f"Repeats: {counts.repeated:,} of the scored interactions ({_percent(counts.repeated, counts.scored)}) are with an item that "
                f"the user had before. {_excluded(found)}"
            ),
            (
                f"Equal times: {counts.tied:.2%} of the interactions have the same millisecond as another one of their user. They keep the "
                "order of the log."
            ),
        ]
    )


def _excluded(found: Found) -> str:
    """Whether a list can have an item that its user had."""
    match found.head.get("exclude"):
        case "none":
            return "`REC2PM_EXCLUDE` was `none`: lists may have such items."
        case "working":
            return "`REC2PM_EXCLUDE` was `working`: no list has the items of working memory, so these are missed."
        case "kept":
            return "`REC2PM_EXCLUDE` was `kept`: no list has the items of working memory and of kept segments, so these are missed."
    return "Whether lists have such items is `REC2PM_EXCLUDE`."


def _users(found: Found) -> Iterable[Block]:
    yield Heading("Per user")
    yield Text("Each user counts once, with the mean of their interactions.")
    rows = []
    for each in found.rankings:
        figures = each.per_user
        rows.append(
            [
                each.name,
                _interval(figures.hr_at_10),
                _number(figures.hr_at_10_median),
                _interval(figures.ndcg_at_10),
                _number(figures.ndcg_at_10_median),
                _interval(figures.mrr),
                _number(figures.mrr_median),
            ]
        )
    yield Table(["", "HR@10, mean", "median", "NDCG@10, mean", "median", "MRR, mean", "median"], rows)
    compared = [(each, each.against_first) for each in found.rankings if each.against_first is not None]
    if not compared:
        return
    first = found.rankings[0].name
    yield Text(
        f"Compared with **{first}**, user by user: the difference of the users' mean NDCG@10, and how many users are better off. p is "
        f"that of the paired t-test, corrected for {len(compared)} comparisons (Holm); the sign test counts users only."
    )
    yield Table(
        ["", "NDCG@10, difference", "p", "better", "equal", "worse", "p (sign test)"],
        [
            [
                each.name,
                f"{pair.ndcg_at_10.value:+.4f} [{pair.ndcg_at_10.low:+.4f}, {pair.ndcg_at_10.high:+.4f}]",
                markdown.p_value(pair.p_holm),
                f"{pair.wins:,}",
                f"{pair.ties:,}",
                f"{pair.losses:,}",
                markdown.p_value(pair.sign_p),
            ]
            for each, pair in compared
        ],
    )


def _beyond(found: Found) -> Iterable[Block]:
    yield Heading("Beyond accuracy")
    yield Table(
        ["", "items shown", "coverage", "novelty, bits", "NDCG@10, each item once", "NDCG@10, popular items capped"],
        [
            [
                each.name,
                _NONE if each.beyond.covered is None else f"{each.beyond.covered:,}",
                _NONE if each.beyond.coverage is None else f"{each.beyond.coverage:.1%}",
                _NONE if each.beyond.novelty is None else f"{each.beyond.novelty:.2f}",
                _number(each.beyond.ndcg_by_item),
                _number(each.beyond.ndcg_capped),
            ]
            for each in found.rankings
        ],
    )
    yield Bullets(
        [
            "Coverage: the share of the log's items that is among the first ten of any list.",
            "Novelty: the mean of −log2(share of users who ever had the item) over the first ten (Zhou et al., PNAS 2010).",
            (
                "Each item once: interactions weigh 1 / how often their item is a target, so popular items do not decide. This is the "
                "self-normalised inverse-propensity estimate of Yang et al. (RecSys 2018) with propensities in proportion to popularity."
            ),
            (
                "Popular items capped: items far above the others (Q3 + 1.5 IQR) weigh no more than that, as in RecTools' `DebiasConfig`, "
                "which draws; this is its mean over all draws."
            ),
        ]
    )


def _unknown(found: Found) -> Iterable[Block]:
    yield Heading("Items that could not be known")
    yield Text(
        "They count as missed above. For a model, these are items outside its catalogue; for a baseline, items that the log had not "
        "shown before."
    )
    yield Table(
        ["", "interactions", "share", "HR@10 without them", "NDCG@10 without them"],
        [
            [
                each.name,
                f"{each.unknown.interactions:,}",
                _percent(each.unknown.interactions, _scored(found)),
                _number(each.unknown.hr_at_10_without),
                _number(each.unknown.ndcg_at_10_without),
            ]
            for each in found.rankings
        ],
    )


def _leaks(found: Found) -> Iterable[Block]:
    if not found.counts.leaked or not found.counts.scored:
        return
    yield Heading("With what models were trained on")
    yield Text(
        "The same figures if interactions in a training range are counted too. Only the first columns are honest."
    )
    yield Table(
        ["", "trained on", "HR@10", "NDCG@10", "HR@10 with them", "NDCG@10 with them"],
        [
            [
                each.name,
                f"{each.leaked:,}",
                _number(each.accuracy.hr[10]),
                _number(each.accuracy.ndcg[10]),
                _number(each.with_leaks["hr_at_10"]),
                _number(each.with_leaks["ndcg_at_10"]),
            ]
            for each in found.rankings
        ],
    )


def _over_time(found: Found, pictures: Mapping[str, Picture]) -> Iterable[Block]:
    yield Heading("Over time")
    yield Text(
        f"NDCG@10 in windows of {width(found.window_ms)}; in brackets, from the beginning until the window's end."
    )
    yield from _picture(pictures, "time")
    windows = zip(*(each.windows for each in found.rankings), strict=True)
    yield Table(
        ["from (UTC)", "interactions", *(each.name for each in found.rankings)],
        [
            [
                _moment(row[0].from_ms).removesuffix(":00 UTC").removesuffix(" 00:00"),
                _few(row[0].interactions),
                *(f"{window.ndcg_at_10:.4f} ({window.ndcg_at_10_so_far:.4f})" for window in row),
            ]
            for row in windows
        ],
    )


def _division(found: Found, division: Division, pictures: Mapping[str, Picture]) -> Iterable[Block]:
    groups = {each.name: {part.label: part for part in each.by[division.name]} for each in found.rankings}
    labels = [label for label in division.labels if any(label in parts for parts in groups.values())]
    if not labels:
        return
    yield Heading(division.title)
    own = " Each model by its own; baselines as the first model." if division.own else ""
    yield Text(f"NDCG@10 by {division.x_label}; in brackets HR@10.{own} *: fewer than {FEW} interactions.")
    yield from _picture(pictures, division.name)
    rows = []
    for label in labels:
        parts = [groups[each.name].get(label) for each in found.rankings]
        n = sorted({part.interactions for part in parts if part})
        rows.append([label, " to ".join(dict.fromkeys([_few(n[0]), _few(n[-1])])), *map(_part, parts)])
    yield Table(["", "interactions", *(each.name for each in found.rankings)], rows)


def _part(part: Part | None) -> str:
    return _NONE if part is None else f"{part.ndcg_at_10:.4f} ({part.hr_at_10:.4f})"


def _cost(found: Found, pictures: Mapping[str, Picture]) -> Iterable[Block]:
    measured = [(each, each.cost) for each in found.models if each.cost is not None]
    if not measured:
        return
    yield Heading("Cost")
    yield Table(
        ["", "NDCG@10", "ms for a list", "ms for a fold", "bytes per user", "interactions/s", "lists", "folds"],
        [
            [
                each.name,
                _number(each.accuracy.ndcg_at_10.value),
                _measured(cost.ms_per_list, ".3f"),
                _measured(cost.ms_per_fold, ".3f"),
                _measured(cost.bytes_per_user, ",.0f"),
                _measured(cost.interactions_per_s, ",.0f"),
                f"{cost.lists:,}",
                f"{cost.folds:,}",
            ]
            for each, cost in measured
        ],
    )
    yield from _picture(pictures, "cost")


def _run(found: Found) -> Iterable[Block]:
    yield Heading("What was run")
    yield Table(["", ""], [[name.replace("_", " "), _told(value)] for name, value in found.head.items()], left=(0, 1))


def _told(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_told(each)}" for name, each in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(map(_told, value))
    return f"`{value}`"


def _method(found: Found) -> Iterable[Block]:
    yield Heading("How the figures were made")
    yield Bullets(
        [
            "All models and baselines are scored on the same interactions: those for which every model had a list.",
            "A rank is over the whole catalogue of a model, never sampled; beyond 100 it counts as a miss.",
            (
                f"Intervals: {BOOTSTRAPS:,} bootstrap samples of users, seed {found.seed}, percentiles. Interactions of a user depend on each "
                "other, so users are drawn, not interactions."
            ),
            (
                f"Baselines know what was there before: counts are refreshed every {REFRESH:,} interactions, or after an hour; a user's own "
                "history is always up to date. They are asked before every interaction, also where models are asked less often. They leave "
                "out what a list of the first model leaves out after so many interactions."
            ),
            "`report.json` has every figure (docs/replay-report.md says what each field means), `per_user.parquet` a row for each user.",
        ]
    )


def _picture(pictures: Mapping[str, Picture], name: str) -> Iterable[Block]:
    if name in pictures:
        yield pictures[name]


def _scored(found: Found) -> int:
    return found.counts.scored or found.counts.leaked


def _number(value: float) -> str:
    return f"{value:.4f}"


def _interval(estimate: Estimate) -> str:
    return markdown.interval(estimate)


def _measured(value: float | None, format_: str) -> str:
    return _NONE if value is None else format(value, format_)


def _percent(part: int, of: int) -> str:
    return f"{part / of:.1%}" if of else _NONE


def _few(n: int) -> str:
    return f"{n:,}{'*' if n < FEW else ''}"


def _moment(epoch_ms: int) -> str:
    return datetime.fromtimestamp(epoch_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
