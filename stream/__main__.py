"""`python -P -m stream` is the command `rec2pm`. Without -P, Python imports a stray model.py of the current folder."""

import gc
import sys

from stream.stop_signals import end_at_once, unwind


def main() -> None:
    """Run the command of `sys.argv`. Does not return: it ends with the command's exit code."""
    end_at_once(sys.argv[1:])
    # An import makes many objects and hardly any garbage. With Python's own thresholds, looking for it takes a seventh
    # of the time in which a worker starts.
    gc.set_threshold(20_000, 20, 20)
    from stream.commands.main import main as rec2pm

    unwind(sys.argv[1:])
    rec2pm(prog_name="rec2pm")


if __name__ == "__main__":
    main()
