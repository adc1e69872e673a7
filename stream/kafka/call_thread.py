"""Calls into a library that may never return. They run on a thread of their own, which can be left behind."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import TypeAlias

Call: TypeAlias = tuple[Callable[[], None], "Future[None]"]


class CallThread:
    """One thread that makes calls, one after the other. It keeps no process from ending."""

    def __init__(self, name: str) -> None:
        self._calls: SimpleQueue[Call | None] = SimpleQueue()
        threading.Thread(target=_make, args=(self._calls,), name=name, daemon=True).start()

    def submit(self, call: Callable[[], None]) -> "Future[None]":
        done: Future[None] = Future()
        self._calls.put((call, done))
        return done

    def leave(self) -> None:
        """Make no more calls; the thread ends when the present one comes back."""
        self._calls.put(None)


def _make(calls: "SimpleQueue[Call | None]") -> None:
    while (given := calls.get()) is not None:
        call, done = given
        try:
            call()
        except BaseException as error:  # whoever waits for it gets it
            done.set_exception(error)
        else:
            done.set_result(None)
        del given, call, done  # what they hold is not kept for as long as the next call takes to come
