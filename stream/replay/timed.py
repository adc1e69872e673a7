"""A recommender that knows what a replay asks of its model: what its calls take, and up to when it was trained."""

from model.version.runtime import Runtime
from stream.model_cost import ModelCost
from stream.recommender import Recommender


class TimedRecommender(Recommender):
    """A model version whose calls are added to a shard's cost."""

    def __init__(self, runtime: Runtime, promotion: str, cost: ModelCost) -> None:
        super().__init__(runtime, promotion)
        self.cost = cost
        training = runtime.manifest.training
        self.trained_until_ms = None if training is None else training.until_ms
