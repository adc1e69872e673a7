"""A thread that follows the promotions of an alias: it gets each new version ready and reports what this worker serves.

The loop of steps never waits for it. Only the newest record of the alias counts: a version that is superseded while it
is being fetched is dropped. Whatever goes wrong leaves the former version serving, and is said three times: in the log,
in a metric, and in the worker's own record on the topic.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, Literal, Protocol

from model.errors import ModelError, VersionUnavailable
from stream.errors import StreamError
from stream.promotion.loading import Loader, Superseded
from stream.promotion.record import Models, Promotion, Report
from stream.serving import Serving

logger = logging.getLogger(__name__)

_LOOK_S: Final = 0.25
_FIRST_PAUSE_S: Final = 2.0
_LONGEST_PAUSE_S: Final = 60.0
"""Between attempts to fetch a version from a registry that does not have it, or does not answer."""
_ENDS_WITHIN_S: Final = 5.0


class Reader(Protocol):
    """`stream.kafka.models_topic.ModelsReader`"""

    models: Models
    at_end: bool

    def poll(self, timeout_s: float) -> bool: ...
    def close(self) -> None: ...


class Reports(Protocol):
    """`stream.kafka.models_topic.Reporter`"""

    def report(self, report: Report) -> None: ...
    def gone(self) -> None: ...
    def close(self) -> None: ...


class Following:
    """What the thread does; `run` in a thread of its own, or `turn` in a test."""

    def __init__(
        self,
        *,
        worker: str,
        alias: str | None,
        reader: Reader,
        reports: Reports,
        loader: Loader,
        serving: Serving,
        wall_ms: Callable[[], int],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Args:
        worker: this worker's name.
        alias: which promotions count; None: none do, and only reports are sent.
        """
        self._worker = worker
        self._alias = alias
        self._reader = reader
        self._reports = reports
        self._loader = loader
        self._serving = serving
        self._wall_ms = wall_ms
        self._clock = clock
        self._ended = threading.Event()
        self._settled = serving.serves.promotion
        """The promotion that has come to its end here: it is offered, or was refused."""
        self._waits_for = ""
        """The promotion whose version could not be fetched."""
        self._try_again_at = clock()
        self._pause_s = _FIRST_PAUSE_S
        self._told: Report | None = None
        self._said_why = ""

    def run(self) -> None:
        """Follow until `end`."""
        while not self._ended.is_set():
            try:
                self.turn(_LOOK_S)
                self._said_why = ""
            except StreamError as error:
                if str(error) != self._said_why:
                    logger.warning("promotions are not followed for the moment: %s", error)
                self._said_why = str(error)
                self._ended.wait(_FIRST_PAUSE_S)
            except Exception:
                # Steps go on without this thread, so it must go on as well.
                logger.exception("following promotions failed, and goes on")
                self._ended.wait(_FIRST_PAUSE_S)

    def end(self) -> None:
        self._ended.set()

    def turn(self, wait_s: float) -> None:
        """Look at the topic, do what it asks for, and report."""
        self._reader.poll(wait_s)
        self._note_what_came()
        wanted = self._wanted()
        self._serving.promoted = None if wanted is None else wanted.version
        if wanted is not None and wanted.id != self._settled:
            if wanted.id != self._waits_for or self._clock() >= self._try_again_at:
                self._prepare(wanted)
        elif self._told is None:
            self._report("serving")

    def _wanted(self) -> Promotion | None:
        return None if self._alias is None else self._reader.models.aliases.get(self._alias)

    def _prepare(self, wanted: Promotion) -> None:
        if self._serving.serves_already(wanted.version, wanted.sha256, wanted.id):
            # The same files under another promotion: nothing to load, and lists do not change.
            self._settle(wanted.id)
            self._report("serving")
            return
        serves = self._serving.serves
        if wanted.id != self._waits_for:
            self._report("loading", of=wanted)
            logger.info("version promoted model=%s serves=%s by=%s", wanted.version, serves.reference, wanted.who)
        began = self._clock()
        try:
            length = serves.recommender.model.segment_length
            ready = self._loader.load(wanted, length, lambda: self._superseded(wanted))
        except Superseded:
            self._serving.came_of_it["superseded"] += 1
            logger.info("version dropped model=%s: a newer promotion came", wanted.version)
        except VersionUnavailable as error:
            self._wait(wanted, str(error))
        except (ModelError, OSError) as error:
            self._refuse(wanted, str(error))
        else:
            self._serving.prepared_s = self._clock() - began
            self._settle(wanted.id)
            self._serving.offer(ready)

    def _superseded(self, wanted: Promotion) -> bool:
        self._reader.poll(0.0)
        newest = self._wanted()
        return self._ended.is_set() or newest is None or newest.id != wanted.id

    def _settle(self, promotion: str) -> None:
        self._settled = promotion
        self._pause_s, self._waits_for = _FIRST_PAUSE_S, ""

    def _wait(self, wanted: Promotion, why: str) -> None:
        self._waits_for, self._try_again_at = wanted.id, self._clock() + self._pause_s
        self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)
        if self._told is None or (self._told.state, self._told.why) != ("waiting", why):
            logger.warning(
                "version not fetched model=%s serves=%s, tried again: %s",
                wanted.version,
                self._serving.serves.reference,
                why,
            )
        self._report("waiting", of=wanted, why=why)

    def _refuse(self, wanted: Promotion, why: str) -> None:
        self._settle(wanted.id)
        self._serving.came_of_it["refused"] += 1
        logger.error("version refused model=%s serves=%s: %s", wanted.version, self._serving.serves.reference, why)
        self._report("refused", of=wanted, why=why)

    def _note_what_came(self) -> None:
        """Report what the loop did with what was offered."""
        for came in self._serving.news():
            if came.why_not is None:
                self._serving.came_of_it["served"] += 1
                self._report("serving")
                continue
            failed = self._reader.models.history.get(came.version.promotion)
            if failed is not None:
                self._refuse(failed, f"{came.version.reference} failed in its first step: {came.why_not}")

    def _report(
        self,
        state: Literal["serving", "loading", "refused", "waiting"],
        *,
        of: Promotion | None = None,
        why: str | None = None,
    ) -> None:
        serves = self._serving.serves
        report = Report(
            worker=self._worker,
            state=state,
            serves=serves.reference,
            sha256=serves.sha256,
            promotion=serves.promotion,
            source=serves.source,
            of=None if of is None else of.version,
            of_promotion="" if of is None else of.id,
            why=why,
            since_ms=self._wall_ms(),
        )
        if self._told is not None and _same_news(self._told, report):
            return
        self._told = report
        self._reports.report(report)


def waiting_for(promotion: Promotion, worker: str, why: str, now_ms: int) -> Report:
    """The report of a worker that has no version to serve."""
    return Report(
        worker=worker,
        state="waiting",
        serves=None,
        sha256=None,
        promotion="",
        source="promoted",
        of=promotion.version,
        of_promotion=promotion.id,
        why=why,
        since_ms=now_ms,
    )


def _same_news(told: Report, report: Report) -> bool:
    return (told.state, told.serves, told.promotion, told.of_promotion, told.why) == (
        report.state,
        report.serves,
        report.promotion,
        report.of_promotion,
        report.why,
    )


@contextmanager
def following(following: Following, reader: Reader, reports: Reports) -> Iterator[None]:
    """Follow while the block runs. Afterwards the worker's record is taken back."""
    thread = threading.Thread(target=following.run, name="promotions", daemon=True)
    thread.start()
    try:
        yield
    finally:
        following.end()
        thread.join(_ENDS_WITHIN_S)
        reports.gone()
        reports.close()
        # A thread that waits for the end of a trial still has the reader. Both end with the process.
        if not thread.is_alive():
            reader.close()
