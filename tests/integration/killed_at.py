"""`rec2pm` that kills itself beside the N-th call of a transaction: `python -m tests.integration.killed_at`.

KILL_AT is `before N` or `after N`. Calls of the transactional producers of `produce --resume` and `state import` count:
the beginning, the sending of offsets, the commits. The commands themselves are the real ones.
"""

import os
import signal
from collections.abc import Callable
from itertools import count

from stream import __main__ as command
from stream.commands import send_once
from stream.commands.import_state import write
from stream.kafka.until_done import until_done

WHEN, NUMBER = os.environ["KILL_AT"].split()
_calls = count(1)


def counted(call: Callable[[], None]) -> None:
    mine = next(_calls) == int(NUMBER)
    if mine and WHEN == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    until_done(call)
    if mine:
        os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    send_once.until_done = counted  # type: ignore[assignment]
    write.until_done = counted  # type: ignore[assignment]
    command.main()


if __name__ == "__main__":
    main()
