"""What can go wrong with a model, a registry or an event log, named for what happened.

LogUnreadable         the event log is missing, empty or not what its columns promise; the message says which and how to
help it TrainingImpossible    the log is readable, but nothing useful can be learned from it under these options
RecipeInvalid         a recipe is not there, not readable, or has fields that are unknown or cannot be TrainingDiverged
the loss or its gradient stopped being a number; the last good checkpoint stays TrainingInterrupted   a signal stopped
training; its checkpoint stays TrainingProcessLost   one of several training processes ended by itself, killed for its
memory perhaps; the checkpoint stays TrainingUnfinished    an earlier training of the same name is there and was neither
to be resumed nor to be discarded, or does not fit TrainerMissing        the packages that only training needs are not
installed EvaluationImpossible  the log has nothing to ask about ArtifactUnreadable    the file is no TorchScript
artifact of this program, or lacks a part of the contract ManifestUnknown       the manifest is missing, malformed or of
a schema this build does not know ManifestMismatch      the artifact, its manifest and its weights do not belong
together ModelFailed           the program raised, or answered with what is not a number ModelNotFound         the
registry has no such name or version, or a name has to be given because there are several
"""


class ModelError(Exception):
    """The root of this package's errors; the message says what was found, what was expected, and where."""


class LogUnreadable(ModelError):
    pass


class TrainingImpossible(ModelError):
    pass


class RecipeInvalid(ModelError):
    pass


class TrainingDiverged(ModelError):
    pass


class EvaluationImpossible(ModelError):
    pass


class TrainingInterrupted(ModelError):
    """`signal` is the number of the signal."""

    def __init__(self, message: str, signal: int) -> None:
        super().__init__(message)
        self.signal = signal


class TrainingProcessLost(ModelError):
    pass


class TrainingUnfinished(ModelError):
    pass


class TrainerMissing(ModelError):
    pass


class ArtifactUnreadable(ModelError):
    pass


class ManifestUnknown(ModelError):
    pass


class ManifestMismatch(ModelError):
    pass


class ModelFailed(ModelError):
    pass


class ModelNotFound(ModelError):
    pass
