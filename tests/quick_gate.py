"""`rec2pm` whose gate tries a candidate once beside the champion, and more often only if it looks slow:
`python -P -m tests.quick_gate models promote …`.

Each round starts two processes. How many rounds there are, and what follows from them, is the subject of
`tests/stream/promotion/checks/test_trial.py`.
"""

import sys
from typing import Final

from stream.promotion.checks import trial

COMMAND: Final = (sys.executable, "-P", "-m", "tests.quick_gate")
ROUNDS: Final = 1


def main() -> None:
    from stream import __main__ as command

    trial.ROUNDS = ROUNDS  # type: ignore[misc]
    command.main()


if __name__ == "__main__":
    main()
