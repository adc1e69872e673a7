"""What can go wrong with a model, a registry or an event log, named for what happened."""


class ModelError(Exception):
    """The root of this package's errors; the message says what was found, what was expected, and where."""


class LogUnreadable(ModelError):
    """The event log is missing, empty or not what its columns promise; the message says which and how to help it."""


class TrainingImpossible(ModelError):
    """The log is readable, but nothing useful can be learned from it under these options."""


class RecipeInvalid(ModelError):
    """A recipe is not there, not readable, or has fields that are unknown or cannot be."""


class TrainingDiverged(ModelError):
    """The loss or its gradient stopped being a number; the last good checkpoint stays."""


class EvaluationImpossible(ModelError):
    """The log has nothing to ask about."""


class TrainingInterrupted(ModelError):
    """A signal stopped training; its checkpoint stays. `signal` is its number."""

    def __init__(self, message: str, signal: int) -> None:
        super().__init__(message)
        self.signal = signal


class TrainingProcessLost(ModelError):
    """One of several training processes ended by itself, killed for its memory perhaps; the checkpoint stays."""


class TrainingUnfinished(ModelError):
    """An earlier training of the same name is there and was neither to be resumed nor to be discarded, or does not
    fit.
    """


class TrainerMissing(ModelError):
    """The packages that only training needs are not installed."""


class ArtifactUnreadable(ModelError):
    """The file is no TorchScript artifact of this program, or lacks a part of the contract."""


class ManifestUnknown(ModelError):
    """The manifest is missing, malformed or of a schema this build does not know."""


class ManifestMismatch(ModelError):
    """The artifact, its manifest and its weights do not belong together."""


class ModelFailed(ModelError):
    """The program raised, or answered with what is not a number."""


class ModelNotFound(ModelError):
    """The registry has no such name or version, or a name has to be given because there are several."""
