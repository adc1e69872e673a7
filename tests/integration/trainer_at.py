"""`rec2pm` that is killed the first time that it comes to a point: `python -m tests.integration.trainer_at`.

TRAINER_POINTS names the points, TRAINER_MARKS a folder where the points that were reached are noted. The command itself
is the real one, and so is the process that trains, which it starts in the same way.
"""

import os
import signal
import sys
from pathlib import Path

from stream.commands import command_line
from stream.trainer import points
from stream.trainer.points import Point

POINTS = {Point(each) for each in os.environ["TRAINER_POINTS"].split(",")}
MARKS = Path(os.environ["TRAINER_MARKS"])


def kill(point: Point) -> None:
    if point in POINTS and not (MARKS / point).exists():
        (MARKS / point).touch()
        os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    from stream import __main__ as command

    points.passing = kill
    command_line.REC2PM = (sys.executable, "-P", "-m", "tests.integration.trainer_at")  # type: ignore[misc]
    command.main()


if __name__ == "__main__":
    main()
