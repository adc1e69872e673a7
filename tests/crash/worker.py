"""`rec2pm worker` with the injector at its named points: `python -m tests.crash.worker`, with CRASH_FOLDER for plan and
events.

The command itself is the real one: its logging, its settings, its exit codes.
"""

import faulthandler
import os
import signal
import sys
import threading
from functools import partial
from pathlib import Path


def main() -> None:
    # Where every thread is, into the log: for the driver, when it sees no progress. Before torch is imported, which
    # takes seconds: until then the signal would end the process.
    faulthandler.register(signal.SIGUSR1)
    threading.Thread(target=_end_with_the_driver, daemon=True).start()

    from stream import __main__ as command
    from stream import compose
    from tests.crash.broken import BREAKS, VARIABLE
    from tests.crash.plan import Injector

    if (mistake := os.environ.get(VARIABLE)) is not None:
        BREAKS[mistake]()
    compose.run_worker = partial(compose.run_worker, at=Injector(Path(os.environ["CRASH_FOLDER"])))
    sys.argv[1:] = ["worker"]
    command.main()


def _end_with_the_driver() -> None:
    """Standard input is a pipe from the driver, which nothing is ever written to: it ends when the driver does."""
    os.read(0, 1)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main()
