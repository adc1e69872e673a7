"""SIGINT and SIGTERM while training runs: noted for the end of the step, or sent on to the training processes."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import FrameType


def caught(*, escalates: bool) -> AbstractContextManager[list[int]]:
    """Signals wait for the end of the step; a second one ends it at once, except where the terminal and the parent
    process both send the same.
    """

    def react(_: int, again: bool) -> None:
        if again and escalates:
            raise KeyboardInterrupt

    return _signals(react)


def passed_on() -> AbstractContextManager[list[int]]:
    """Signals go to the processes that train; this one waits for how they end, and knows which ones there were."""

    def react(number: int, _: bool) -> None:
        for child in multiprocessing.active_children():
            if child.pid is not None:
                os.kill(child.pid, number)

    return _signals(react)


@contextmanager
def _signals(react: Callable[[int, bool], None]) -> Iterator[list[int]]:
    """SIGINT and SIGTERM call `react` with their number and whether there was one before, and are noted. Outside the
    main thread they are somebody else's."""
    noted: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield noted
        return

    def note(number: int, _: FrameType | None) -> None:
        react(number, bool(noted))
        noted.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield noted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
