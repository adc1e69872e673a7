"""A recommender that notes how long its model takes."""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from model.version.runtime import Runtime
from state.user import Preference
from stream.recommender import Fold, Query, RankedList, Recommender


@dataclass(slots=True)
class Cost:
    """What the model's calls took."""

    lists: int = 0
    list_seconds: float = 0.0
    folds: int = 0
    fold_seconds: float = 0.0

    def since(self, before: "Cost") -> dict[str, float]:
        """What came after another moment."""
        earlier = asdict(before)
        return {name: figure - earlier[name] for name, figure in asdict(self).items()}


class TimedRecommender(Recommender):
    """A model whose calls are timed, and up to when it was trained."""

    def __init__(self, runtime: Runtime, promotion: str, cost: Cost) -> None:
        super().__init__(runtime, promotion)
        self._cost = cost
        training = runtime.manifest.training
        self.trained_until_ms = None if training is None else training.until_ms

    def recommend(self, queries: Sequence[Query], k: int) -> list[RankedList]:
        began = time.perf_counter()
        made = super().recommend(queries, k)
        self._cost.lists += len(queries)
        self._cost.list_seconds += time.perf_counter() - began
        return made

    def fold(
        self,
        before: Sequence[Preference | None],
        segments: Sequence[bytes],
        as_of: Sequence[int],
        times: Sequence[bytes] | None = None,
    ) -> list[Fold]:
        began = time.perf_counter()
        made = super().fold(before, segments, as_of, times)
        self._cost.folds += len(segments)
        self._cost.fold_seconds += time.perf_counter() - began
        return made
