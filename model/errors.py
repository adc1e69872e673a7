"""What can go wrong with a model, a registry or an event log. Each error is named for what happened."""

from collections.abc import Mapping, Sequence


class ModelError(Exception):
    """The root of the errors of this package. A message says what was found, what was expected, and where."""


class LogUnreadable(ModelError):
    """The event log is missing, empty or malformed. The message says which, and what to do."""


class TrainingImpossible(ModelError):
    """The log is readable, but nothing useful can be learned from it under these options.

    `remedies` are changes to fields of the recipe that may help, the best one first.
    """

    def __init__(self, message: str, remedies: Sequence[Mapping[str, object]] = ()) -> None:
        super().__init__(message)
        self.remedies = remedies


class RecipeInvalid(ModelError):
    """There is no such recipe, it is not readable, or it has fields that are unknown or cannot be."""


class TrainingDiverged(ModelError):
    """The loss or its gradient is no longer a number. The last good checkpoint stays."""


class EvaluationImpossible(ModelError):
    """The log has no target to evaluate on."""


class ReplayIncomplete(ModelError):
    """A file of a replay is missing, lacks a column, or does not belong to the others."""


class TrainingInterrupted(ModelError):
    """A signal stopped training. The checkpoint stays. `signal` is the number of the signal."""

    def __init__(self, message: str, signal: int) -> None:
        super().__init__(message)
        self.signal = signal


class TrainingProcessLost(ModelError):
    """One of several training processes has ended, perhaps because memory ran out. The checkpoint stays."""


class TrainingUnfinished(ModelError):
    """There is an earlier training of the same name. The caller neither resumes nor discards it, or it is another
    training.
    """


def how_to_install(extra: str) -> str:
    """What brings an extra. No package of this name is published: it comes from the checkout, or from a wheel of it."""
    return f"pip install '.[{extra}]' in the checkout, or with the path of a wheel for the dot"


class TrainerMissing(ModelError):
    """Packages that only training needs are not installed."""


class ArtifactUnreadable(ModelError):
    """The file is not a TorchScript artifact of this program, or a method of the contract is missing."""


class ManifestUnknown(ModelError):
    """The manifest is missing, malformed, or has a schema that this build does not know."""


class ManifestMismatch(ModelError):
    """The artifact, its manifest and its weights do not belong together."""


class DigestMismatch(ModelError):
    """A file of a version has another SHA-256 than its manifest or the reference says. Nothing of it was loaded."""


class VersionUnavailable(ModelError):
    """The registry does not answer, or refuses; or a file of a version is missing. It may be there later."""


class GoldenMismatch(ModelError):
    """The program does not answer as it did when its version was written, or its answers cannot be right."""


class VersionTaken(ModelError):
    """The registry has another version of the same name and number. Nothing was replaced."""


class ModelFailed(ModelError):
    """The program raised an error, or its answer has numbers that are not finite."""


class ModelNotFound(ModelError):
    """The registry has no such model or whole version, or has several models and the caller named none."""
