"""What can go wrong with remembered state. What the worker does about each stands in `stream/errors.py`."""

from pathlib import Path


class StateError(Exception):
    """Any error of this package."""


class StateCorrupted(StateError):
    """The local store cannot be read, or holds bytes that no format explains. `folder` is the store, where one is
    involved.
    """

    folder: Path | None = None


class StateFormatUnknown(StateError):
    """A record carries a format number of a newer build; reading on would lose what it says."""


class StoreLocked(StateError):
    """Another process, or an unfinished close, holds the store's lock."""


class StoreUnwritable(StateError):
    """The disk refused a write: full, read-only or failing."""


class SegmentLengthChanged(StateError):
    """The model folds after another number of interactions than the stored state was built with."""
