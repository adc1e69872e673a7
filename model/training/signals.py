"""SIGINT and SIGTERM during training: the step is finished first, or the training processes get the signal."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import FrameType


def caught(*, escalates: bool) -> AbstractContextManager[list[int]]:
    """Signals are noted until the end of the step. A second signal interrupts the step, if `escalates`. With several
    processes it does not, because the terminal and the parent process both send the first one.
    """

    def react(_: int, again: bool) -> None:
        if again and escalates:
            raise KeyboardInterrupt

    return _signals(react)


def passed_on() -> AbstractContextManager[list[int]]:
    """Signals are noted and sent on to the training processes, for which this process waits."""

    def react(number: int, _: bool) -> None:
        for child in multiprocessing.active_children():
            if child.pid is not None:
                os.kill(child.pid, number)

    return _signals(react)


@contextmanager
def _signals(react: Callable[[int, bool], None]) -> Iterator[list[int]]:
    """SIGINT and SIGTERM call `react` with their number and whether there was a signal before. They are noted in the
    list.

    Outside the main thread, signals are left alone.
    """
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
