"""`rec2pm worker` that notes when each step began and ended: `python -m tests.soak.worker`, with SOAK_STEPS for the
file.

The command itself is the real one. A note is 17 bytes: what it is (one byte), when it began and ended, ns since the
epoch.
"""

import os
import struct
import sys
import time
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

from stream.fault_points import Point

VARIABLE: Final = "SOAK_STEPS"
_NOTE: Final = struct.Struct("<Bqq")
STEP: Final = "step"
_KINDS: Final = (STEP, *Point)


class Note(NamedTuple):
    """`kind`: STEP, or a point that a version passes on its way. Times are ns since the epoch."""

    kind: str
    began: int
    ended: int


class Notes:
    """The function that a worker calls at its points."""

    def __init__(self, path: Path) -> None:
        # One write per note: the thread that loads models notes too.
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._polled = 0

    def __call__(self, point: Point) -> None:
        now = time.time_ns()
        if point is Point.POLLED:
            self._polled = now
        elif point is Point.WRITTEN:
            self._note(STEP, self._polled or now, now)
            self._polled = 0
        elif point.startswith("model-") or point == "refolded":
            self._note(point, now, now)

    def _note(self, kind: str, began: int, ended: int) -> None:
        os.write(self._file, _NOTE.pack(_KINDS.index(kind), began, ended))


def read(path: Path) -> list[Note]:
    return [Note(str(_KINDS[kind]), began, ended) for kind, began, ended in _NOTE.iter_unpack(path.read_bytes())]


def main() -> None:
    from stream import __main__ as command
    from stream import compose

    compose.run_worker = partial(compose.run_worker, at=Notes(Path(os.environ[VARIABLE])))
    sys.argv[1:] = ["worker"]
    command.main()


if __name__ == "__main__":
    main()
