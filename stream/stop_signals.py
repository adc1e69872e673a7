"""SIGTERM and SIGINT from the first line of a process on, until the command has handlers of its own.

A process that is PID 1 of a container has no default actions: Linux drops a signal for which it installed no handler.
So each process installs some before it imports anything large.
"""

import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import Final

EXIT_INTERRUPTED: Final = 130
EXIT_TERMINATED: Final = 143
_SERVERS: Final = frozenset({"worker", "view"})
_CLEAN_WHEN_STOPPED: Final = _SERVERS | {"train", "trainer", "trainer-job"}
"""For these commands SIGTERM is a clean end: exit code 0. Another command has then not done its work."""


def end_at_once(arguments: Sequence[str]) -> None:
    """Let SIGTERM and SIGINT end the process without further ado. Nothing has begun that would need an end.

    Args:
        arguments: of the command line. They say whether SIGTERM is a clean end (exit code 0).
    """

    def end(number: int, _: FrameType | None) -> None:
        # Not logging: the signal may have come in the middle of a line of it.
        os.write(2, f"rec2pm: {signal.Signals(number).name} came while the command was starting\n".encode())
        os._exit(_exit_code(number, arguments))

    signal.signal(signal.SIGTERM, end)
    # A shell lets its background jobs ignore SIGINT. A worker and a view end by it all the same.
    if _command(arguments) in _SERVERS or signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, end)


def unwind(arguments: Sequence[str]) -> None:
    """Let SIGTERM and SIGINT end a command through its `finally` blocks.

    A worker and a view are still starting, and their imports may swallow an exception: they end at once until they have
    handlers of their own.
    """
    if _command(arguments) in _SERVERS:
        return

    def end(number: int, _: FrameType | None) -> None:
        sys.exit(_exit_code(number, arguments))

    signal.signal(signal.SIGTERM, end)
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _command(arguments: Sequence[str]) -> str:
    return next((each for each in arguments if not each.startswith("-")), "")


def _exit_code(number: int, arguments: Sequence[str]) -> int:
    if number == signal.SIGINT:
        return EXIT_INTERRUPTED
    return 0 if _command(arguments) in _CLEAN_WHEN_STOPPED else EXIT_TERMINATED
