"""For those who test what they build around a worker: `Driver` is a worker without Kafka, `untrained` a model for it.

The fixtures of pytest are in `stream.pytest_plugin`.
"""

from stream.testing.driver import Driver, Made, Refused
from stream.testing.untrained import untrained

__all__ = ["Driver", "Made", "Refused", "untrained"]
