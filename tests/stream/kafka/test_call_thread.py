"""Calls thread the loop: what they raise arrives, and one that never returns is left behind."""

import subprocess
import sys
import threading
import time
import weakref

import pytest

from stream.kafka.call_thread import CallThread


def test_a_call_is_made_and_what_it_raises_arrives() -> None:
    calls: list[int] = []
    thread = CallThread("test")
    thread.submit(lambda: calls.append(1)).result(10)

    def fails() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        thread.submit(fails).result(10)
    thread.submit(lambda: calls.append(2)).result(10)
    assert calls == [1, 2], "an error does not end the thread"
    thread.leave()


def test_a_call_that_does_not_return_is_waited_for_no_longer_than_asked() -> None:
    held = threading.Event()
    thread = CallThread("test")
    done = thread.submit(lambda: held.wait(60) and None)
    with pytest.raises(TimeoutError):
        done.result(0.01)
    thread.leave()
    held.set()
    done.result(10)


def test_nothing_of_a_call_is_kept_when_it_is_done() -> None:
    class Producer:
        pass

    producer = Producer()
    gone = weakref.ref(producer)
    thread = CallThread("test")
    thread.submit(lambda producer=producer: None).result(10)  # type: ignore[misc]
    del producer
    deadline = time.monotonic() + 10
    while gone() is not None:
        assert time.monotonic() < deadline
        time.sleep(0.001)
    thread.leave()


def test_a_call_that_never_returns_keeps_no_process_from_ending() -> None:
    program = "import threading\nfrom stream.kafka.call_thread import CallThread\nCallThread('x').submit(threading.Event().wait)"
    assert subprocess.run([sys.executable, "-c", program], timeout=30, check=False).returncode == 0
