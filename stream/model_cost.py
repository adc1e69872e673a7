"""What a model's calls take."""

from dataclasses import asdict, dataclass


@dataclass(slots=True)
class ModelCost:
    """Calls of a model since the beginning: all of them, also for memories that are rebuilt and for steps that are
    computed again.
    """

    lists: int = 0
    list_seconds: float = 0.0
    folds: int = 0
    fold_seconds: float = 0.0

    def since(self, before: "ModelCost") -> dict[str, float]:
        """What came after another moment."""
        earlier = asdict(before)
        return {name: figure - earlier[name] for name, figure in asdict(self).items()}
