"""What a report says, as values: the schema of `report.json`, documented in docs/replay-report.md."""

from dataclasses import dataclass
from typing import Any, Final, Literal

from model.evaluation.replay.files import Protocol
from model.evaluation.significance import Estimate

SCHEMA: Final = 1


@dataclass(frozen=True, slots=True)
class Finding:
    """A check of the log. `verdict`: `OK`, `attention` or `FAIL`."""

    name: str
    verdict: str
    figure: str
    words: str


@dataclass(frozen=True, slots=True)
class Caution:
    """What a reader must know before the figures. `red`: they are not what they seem."""

    red: bool
    words: str


@dataclass(frozen=True, slots=True)
class Counts:
    """How many interactions the log has, and which of them count. `asked`: those that the protocol asks about; the
    numbers below are of these. `scored`: those that every model had a list for and none
    was trained on. `tied`: the share of interactions with the same time as another one of their user.
    """

    interactions: int
    users: int
    items: int
    from_ms: int
    until_ms: int
    tied: float
    asked: int
    without_list: int
    leaked: int
    scored: int
    scored_users: int
    repeated: int


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Means over the scored interactions. Intervals come from a bootstrap over users. `hr`, `ndcg`: by k."""

    hr: dict[int, float]
    ndcg: dict[int, float]
    mrr: float
    hr_at_10: Estimate
    ndcg_at_10: Estimate


@dataclass(frozen=True, slots=True)
class PerUser:
    """The mean of each user's interactions, over users: its mean with the interval, and its median."""

    hr_at_10: Estimate
    ndcg_at_10: Estimate
    mrr: Estimate
    hr_at_10_median: float
    ndcg_at_10_median: float
    mrr_median: float


@dataclass(frozen=True, slots=True)
class Beyond:
    """What lists are like beside being right. `covered`: different items among the first ten of any list; `coverage`:
    the share of the log's items that is among them. `novelty`: the mean self-information of the items shown, bits.
    None: the lists were not kept. `ndcg_by_item`, `ndcg_capped`: NDCG@10 without the weight of popular items.
    """

    covered: int | None
    coverage: float | None
    novelty: float | None
    ndcg_by_item: float
    ndcg_capped: float


@dataclass(frozen=True, slots=True)
class Against:
    """The paired comparison with the first model, over users: the difference of the users' mean NDCG@10."""

    users: int
    ndcg_at_10: Estimate
    p: float
    p_holm: float
    wins: int
    ties: int
    losses: int
    sign_p: float


@dataclass(frozen=True, slots=True)
class Part:
    """Some of the interactions."""

    label: str
    least: float
    interactions: int
    hr_at_10: float
    ndcg_at_10: float


@dataclass(frozen=True, slots=True)
class Window:
    """The interactions of a stretch of time, and all until its end."""

    from_ms: int
    interactions: int
    hr_at_10: float
    ndcg_at_10: float
    hr_at_10_so_far: float
    ndcg_at_10_so_far: float


@dataclass(frozen=True, slots=True)
class Cost:
    """What a model costs. None: nothing was made or measured."""

    ms_per_list: float | None
    ms_per_fold: float | None
    bytes_per_user: float | None
    interactions_per_s: float | None
    lists: int
    folds: int
    users: int


@dataclass(frozen=True, slots=True)
class Unknown:
    """Items that the model could not have known: for a model, not in its catalogue; for a baseline, never seen before.
    `without`: accuracy without them.
    """

    interactions: int
    hr_at_10_without: float
    ndcg_at_10_without: float


@dataclass(frozen=True, slots=True)
class Ranked:
    """All figures of a model or baseline. `by`: by name of the division. `leaked`: scored interactions that this model
    was trained on. `with_leaks`: NDCG@10 and HR@10 if interactions that a model was trained on are counted too.
    """

    name: str
    is_model: bool
    description: str
    accuracy: Accuracy
    per_user: PerUser
    beyond: Beyond
    against_first: Against | None
    without_list: int
    leaked: int
    with_leaks: dict[str, float]
    unknown: Unknown
    by: dict[str, list[Part]]
    windows: list[Window]
    cost: Cost | None


@dataclass(frozen=True, slots=True)
class Found:
    """The whole report. The others are compared with the first of `rankings`; models come first, then baselines.
    `figures`: `clean`, or `leaked` if models were trained on every interaction that could count, so that all figures
    are of such interactions.
    """

    schema: int
    protocol: Protocol
    figures: Literal["clean", "leaked"]
    head: dict[str, Any]
    warnings: list[Caution]
    audit: list[Finding]
    counts: Counts
    window_ms: int
    seed: int
    rankings: list[Ranked]

    @property
    def models(self) -> list[Ranked]:
        return [each for each in self.rankings if each.is_model]
