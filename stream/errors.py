"""What the worker does about each error.

    MalformedInteraction   DEAD_LETTER  the record can never succeed: keep it with its reason, continue
    ModelFailed            DEAD_LETTER  the same, once the record that the model fails on is found
    StepAborted            ABANDON      drop the step, continue reading the changelog, which has what is published
    StateCorrupted         RESTORE      wipe the local store, rebuild it from the changelog
    StopAsked              LEAVE        leave the group; exit code 0
    everything else        STOP         one line: what was found, what was expected, what to do; exit code 1 or 2

`ACTIONS` is this table. The worker's loop and `stream.compose` read it with `action_on`. A test checks that every
error of the project has a row.
"""

from enum import Enum, auto
from typing import Final, Literal, get_args

from model.errors import ModelError, ModelFailed
from state.errors import SegmentLengthChanged, StateCorrupted, StateFormatUnknown, StoreLocked, StoreUnwritable


class StreamError(Exception):
    """Any error of this package."""


class MalformedInteraction(StreamError):
    """A record of the input that can never become an interaction."""


AbortReason = Literal["rebalance", "kafka", "producer_replaced", "letter_too_large", "offset_went_back", "model"]
ABORT_REASONS: Final[tuple[AbortReason, ...]] = get_args(AbortReason)


class StepAborted(StreamError):
    """Kafka refused the transaction or did not answer in time, in a rebalance or an outage. A retry can help."""

    def __init__(self, message: str, *, reason: AbortReason = "kafka") -> None:
        """Args:
        reason: for the metrics. rebalance: the group has gone on without this worker; kafka: Kafka refused the
            transaction otherwise; producer_replaced: Kafka did not answer before the transaction was too old, or the
            client could not go on; letter_too_large: a dead letter must be made smaller; offset_went_back: the client
            delivered a record twice; model: it failed on records together, and on none alone.
        """
        super().__init__(message)
        self.reason = reason


class Fenced(StreamError):
    """Another process has this worker's name."""


class KafkaUnusable(StreamError):
    """Kafka reported something that waiting cannot fix: topic gone, no permission, a fatal client error."""


class TopicsUnusable(StreamError):
    """A topic is missing, or does not fit the others."""


class BehindOpenTransaction(StreamError):
    """Records wait behind somebody's open transaction: what the topic holds cannot be told."""


class OutputTooLarge(StreamError):
    """A record is larger than the broker accepts."""


class InputGap(StreamError):
    """The input lacks records after the committed offset. An operator must decide to continue without them."""


class ChangelogUnfit(StreamError):
    """The changelog lacks the state that belongs to the committed offsets: to continue would lose it silently."""


class RestoreBroken(StreamError):
    """The changelog cannot be read to its end."""


class StopAsked(StreamError):
    """The worker was asked to stop while it waited for Kafka. A restart settles what is unfinished. Exit code 0."""


class TooManyRefused(StreamError):
    """A larger share of the input is refused than the settings allow: a producer is broken, not single records."""


class StoreBehind(StreamError):
    """The step is published, but a store could not write it. A restart restores what is missing."""


class PromotionConflict(StreamError):
    """Somebody else promoted a version since the promoter looked. A worker never promotes."""


class GateFailed(StreamError):
    """A check of the gate failed, and nobody passed over it: nothing was promoted. A worker never promotes."""


class MlflowUnusable(StreamError):
    """MLflow does not give a version that it knows: it is away, or the version's files are. A worker never asks it."""


class SettingsInvalid(StreamError):
    """One or more settings are unknown or wrong."""


class TrainingLogUnfit(StreamError):
    """The folder of a trainer's log cannot be used: it is another's, or of another topic, or damaged."""


class TrainerElsewhere(StreamError):
    """Another trainer of this application runs. Two of them must not learn and promote at the same time."""


class TrainingFailed(StreamError):
    """The process that trains for a trainer ended several times before its end."""


class ExportUnfit(StreamError):
    """Interactions cannot be exported like this: the folder or the range does not fit. A worker never exports."""


class ImportUnfit(StreamError):
    """States cannot be imported like this: the file or the application does not fit. A worker never imports."""


class ProduceUnfit(StreamError):
    """A log cannot be sent on like this: the note of what was sent does not fit. A worker never sends a log."""


class ReplayFailed(StreamError):
    """A process of a replay was killed. The same command goes on."""


class ReplayUnfinished(StreamError):
    """The folder of a replay has another one, which was not finished."""


class ListUnexplained(StreamError):
    """A list cannot be made again: there was none, or what it was made from is not there. A worker never explains."""


class ApplicationBusy(StreamError):
    """Somebody still works on an application that is to be removed. A worker never removes anything."""


class Action(Enum):
    """What the worker does."""

    DEAD_LETTER = auto()
    ABANDON = auto()
    RESTORE = auto()
    LEAVE = auto()
    STOP = auto()


ACTIONS: Final[dict[type[Exception], Action]] = {
    MalformedInteraction: Action.DEAD_LETTER,
    ModelFailed: Action.DEAD_LETTER,
    StepAborted: Action.ABANDON,
    Fenced: Action.STOP,
    KafkaUnusable: Action.STOP,
    TopicsUnusable: Action.STOP,
    BehindOpenTransaction: Action.STOP,
    OutputTooLarge: Action.STOP,
    InputGap: Action.STOP,
    ChangelogUnfit: Action.STOP,
    RestoreBroken: Action.STOP,
    TooManyRefused: Action.STOP,
    StopAsked: Action.LEAVE,
    PromotionConflict: Action.STOP,
    GateFailed: Action.STOP,
    MlflowUnusable: Action.STOP,
    SettingsInvalid: Action.STOP,
    StoreBehind: Action.STOP,
    TrainingLogUnfit: Action.STOP,
    TrainerElsewhere: Action.STOP,
    TrainingFailed: Action.STOP,
    ExportUnfit: Action.STOP,
    ImportUnfit: Action.STOP,
    ProduceUnfit: Action.STOP,
    ReplayFailed: Action.STOP,
    ReplayUnfinished: Action.STOP,
    ListUnexplained: Action.STOP,
    ApplicationBusy: Action.STOP,
    StateCorrupted: Action.RESTORE,
    StateFormatUnknown: Action.STOP,
    StoreLocked: Action.STOP,
    StoreUnwritable: Action.STOP,
    SegmentLengthChanged: Action.STOP,
    ModelError: Action.STOP,
}


def action_on(error: Exception) -> Action:
    """The action for an error: its own row in `ACTIONS`, or the row of its nearest base class."""
    return next((ACTIONS[each] for each in type(error).__mro__ if each in ACTIONS), Action.STOP)
