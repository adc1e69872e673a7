"""Errors about stored state. `stream/errors.py` says what the worker does about each."""

from pathlib import Path


class StateError(Exception):
    """Any error of this package."""


class StateCorrupted(StateError):
    """The store cannot be read, or holds bytes that no format explains. `folder`: the store, if one is involved."""

    folder: Path | None = None


class StateFormatUnknown(StateError):
    """A record has a format number of a newer build; to continue would destroy what it holds."""


class StoreLocked(StateError):
    """Another process has the store's lock, or an earlier close has not finished."""


class StoreUnwritable(StateError):
    """The disk refused a write: full, read-only or failing."""


class SegmentLengthChanged(StateError):
    """The model has another segment length than the one that built the stored state."""
