"""The version that serves, and the one that is about to: what the loop of steps and the thread that follows promotions
tell each other.

The thread prepares a version and offers it. The loop takes the offer between two steps, and says what came of it. A
version is on probation until it has published a step: if the model fails before that, the former version serves on.
"""

import threading
from typing import Final, Literal, NamedTuple

from stream.recommender import Recommender

Source = Literal["promoted", "configured", "local"]
"""Why a version serves: it was promoted; the settings name it; or it is the newest one on this machine, because the
promoted one cannot be had.
"""
RESULTS: Final = ("served", "refused", "superseded")
"""What can come of a promoted version in a worker."""


class Served(NamedTuple):
    """A version that is loaded."""

    recommender: Recommender
    sha256: str
    """Of its manifest."""
    source: Source
    promotion: str = ""
    """The id of the promotion; empty if the settings name it."""

    @property
    def reference(self) -> str:
        return self.recommender.model.reference


class Came(NamedTuple):
    """What came of an offer."""

    version: Served
    why_not: str | None = None
    """Why it does not serve after all; None if it serves."""


class Serving:
    """Shared by the two threads."""

    def __init__(self, first: Served) -> None:
        self._lock = threading.Lock()
        self._offered: Served | None = None
        self._came: list[Came] = []
        self._serves = first
        self._former: Served | None = None
        self.promoted: str | None = None
        """NAME@VERSION of the newest promotion; None if there is none, or if the worker follows none."""
        self.came_of_it: Final[dict[str, int]] = dict.fromkeys(RESULTS, 0)
        """How many promoted versions ended in each of `RESULTS`."""
        self.prepared_s = 0.0
        """Seconds from the record to the offer, of the version that was prepared last."""

    @property
    def serves(self) -> Served:
        """What the next step is computed by."""
        return self._serves

    @property
    def as_promoted(self) -> bool:
        """Whether the newest promoted version serves; True if nothing is promoted."""
        return self.promoted in (None, self._serves.reference)

    def offer(self, ready: Served) -> None:
        """Let the loop take this version before its next step. An offer that it has not taken is dropped."""
        with self._lock:
            self._offered = ready

    def serves_already(self, reference: str, sha256: str, promotion: str) -> bool:
        """Whether this version serves. If so, it does under this promotion; an offer that nobody took is dropped."""
        with self._lock:
            if (self._serves.reference, self._serves.sha256) != (reference, sha256):
                return False
            self._offered = None
            self._serves = self._serves._replace(promotion=promotion, source="promoted")
            return True

    def take(self) -> Served | None:
        """The offer, once. It serves from the next step on."""
        if self._offered is None:  # most turns: no lock
            return None
        with self._lock:
            offered, self._offered = self._offered, None
            if offered is not None:
                # A version that has not proved itself is not what to go back to.
                self._former = self._former or self._serves
                self._serves = offered
                self._came.append(Came(offered))
            return offered

    @property
    def former(self) -> Recommender | None:
        """What served before the version that has not published a step yet; None if it has."""
        return None if self._former is None else self._former.recommender

    def proved(self) -> None:
        """The version that serves has published a step."""
        self._former = None

    def back(self, why: str) -> None:
        """The version on probation failed: the former one serves on."""
        with self._lock:
            if self._former is not None:
                self._came.append(Came(self._serves, why))
                self._serves, self._former = self._former, None

    def news(self) -> list[Came]:
        """What came of offers since the last call."""
        with self._lock:
            came, self._came = self._came, []
            return came
