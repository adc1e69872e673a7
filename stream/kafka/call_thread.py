"""Calls of librdkafka that may never return. They run on their own thread, which the worker can leave behind."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import TypeAlias

Call: TypeAlias = tuple[Callable[[], None], "Future[None]"]


class CallThread:
    """One thread that makes calls, one after the other. It does not keep the process from ending."""

    def __init__(self, name: str) -> None:
        self._calls: SimpleQueue[Call | None] = SimpleQueue()
        threading.Thread(target=_make, args=(self._calls,), name=name, daemon=True).start()

    def submit(self, call: Callable[[], None]) -> "Future[None]":
        done: Future[None] = Future()
        self._calls.put((call, done))
        return done

    def leave(self) -> None:
        """Make no more calls; the thread ends when its present call returns."""
        self._calls.put(None)


def _make(calls: "SimpleQueue[Call | None]") -> None:
    while (given := calls.get()) is not None:
        call, done = given
        try:
            call()
        except BaseException as error:  # the future passes it on
            done.set_exception(error)
        else:
            done.set_result(None)
        del given, call, done  # otherwise they keep objects alive until the next call
