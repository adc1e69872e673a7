"""What the worker does about each error.

    MalformedInteraction   DEAD_LETTER  the record can never succeed: keep it with its reason, go on
    ModelFailed            DEAD_LETTER  the same, once the record that the model fails on is found
    StepAborted            ABANDON      drop the step, read on in the changelog, which knows what is published
    StateCorrupted         RESTORE      wipe the local store, rebuild it from the changelog
    StopAsked              LEAVE        leave the group; exit code 0
    everything else        STOP         one line: what was found, what was expected, what to do; exit code 1 or 2

`ACTIONS` is this table. The worker's loop and `stream.compose` ask it by `action_on`. A test walks every error of the
project and fails on one without a row.
"""

from enum import Enum, auto
from typing import Final

from model.errors import ModelError, ModelFailed
from state.errors import SegmentLengthChanged, StateCorrupted, StateFormatUnknown, StoreLocked, StoreUnwritable


class StreamError(Exception):
    """Any error of this package."""


class MalformedInteraction(StreamError):
    """A record of the input that can never become an interaction."""


class StepAborted(StreamError):
    """The transaction was refused in a way that another attempt can mend, or had no answer in time: a rebalance, a
    broker that was away.
    """


class Fenced(StreamError):
    """Another process has this worker's name."""


class KafkaUnusable(StreamError):
    """Kafka reported something that no waiting mends: topic gone, no permission, a fatal client error."""


class TopicsUnusable(StreamError):
    """A topic is missing, or does not fit the others."""


class OutputTooLarge(StreamError):
    """A record is larger than the broker takes."""


class InputGap(StreamError):
    """The input does not hold what follows the committed offset. Which records to do without is not the worker's to
    decide.
    """


class ChangelogUnfit(StreamError):
    """The changelog does not hold the state that goes with the committed offsets: going on would lose it in silence."""


class RestoreBroken(StreamError):
    """The changelog cannot be read to its end."""


class StopAsked(StreamError):
    """The worker was asked to stop while it waited for Kafka: nothing is under way that a restart would not settle.
    Exit code 0.
    """


class TooManyRefused(StreamError):
    """A larger share of the input is refused than the settings allow: what sends it is broken, not single records."""


class StoreBehind(StreamError):
    """The step is published, but the local store did not take it; a restart restores what is missing."""


class SettingsInvalid(StreamError):
    """One or more settings are unknown or wrong."""


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
    OutputTooLarge: Action.STOP,
    InputGap: Action.STOP,
    ChangelogUnfit: Action.STOP,
    RestoreBroken: Action.STOP,
    TooManyRefused: Action.STOP,
    StopAsked: Action.LEAVE,
    SettingsInvalid: Action.STOP,
    StoreBehind: Action.STOP,
    StateCorrupted: Action.RESTORE,
    StateFormatUnknown: Action.STOP,
    StoreLocked: Action.STOP,
    StoreUnwritable: Action.STOP,
    SegmentLengthChanged: Action.STOP,
    ModelError: Action.STOP,
}


def action_on(error: Exception) -> Action:
    """What to do about an error: its own row in `ACTIONS`, or the nearest one of the errors that it derives from."""
    return next((ACTIONS[each] for each in type(error).__mro__ if each in ACTIONS), Action.STOP)
