"""How a process of ours starts another `rec2pm`."""

import sys
from typing import Final

# -P: without it, Python imports a stray model.py or state.py of the current folder instead of our packages.
REC2PM: Final = (sys.executable, "-P", "-m", "stream")
"""The command line of `rec2pm`: this interpreter, so that it is this installation whatever PATH says."""
