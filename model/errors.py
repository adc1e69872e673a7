"""What can go wrong with a model, a registry or an event log, named for what happened.

LogUnreadable         the event log is missing, empty or not what its columns promise; the message says which and how to help it
TrainingImpossible    the log is readable, but nothing useful can be learned from it under these options
TrainingDiverged      the loss stopped being a number
EvaluationImpossible  the log has nothing to ask about
ArtifactUnreadable    the file is no TorchScript artifact of this program, or lacks a part of the contract
ManifestUnknown       the manifest is missing, malformed or of a schema this build does not know
ManifestMismatch      the artifact, its manifest and its weights do not belong together
ModelNotFound         the registry has no such name or version, or a name has to be given because there are several
"""


class ModelError(Exception):
    """The root of this package's errors; the message says what was found, what was expected, and where."""


class LogUnreadable(ModelError):
    pass


class TrainingImpossible(ModelError):
    pass


class TrainingDiverged(ModelError):
    pass


class EvaluationImpossible(ModelError):
    pass


class ArtifactUnreadable(ModelError):
    pass


class ManifestUnknown(ModelError):
    pass


class ManifestMismatch(ModelError):
    pass


class ModelNotFound(ModelError):
    pass
