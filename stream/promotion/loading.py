"""From a promotion to a version that is ready to serve: found, fetched, tried in a child process, loaded, warmed up.

Each step may raise, and none of them touches what serves. An artifact is code: a program that hangs or takes all memory
does so in the child, which is ended, before this process loads it.
"""

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import torch

from model.errors import DigestMismatch, ModelError, VersionUnavailable
from model.version.cache import Cache
from model.version.checked_files import CheckedFiles
from model.version.registry import Registry
from model.version.runtime import Runtime
from model.version.trial import tried
from stream.fault_points import At, Point
from stream.promotion.places import places
from stream.promotion.record import Promotion
from stream.recommender import Recommender
from stream.serving import Served, Source
from stream.torch_threads import one_thread

logger = logging.getLogger(__name__)

TRIAL_S: Final = 60.0
"""How long the child may take to load, warm up and repeat the golden lists."""


class VersionUnfit(ModelError):
    """A promoted version that this worker must not serve. The message says why."""


class Superseded(Exception):
    """A newer promotion came: this one no longer counts."""


class Loader:
    """Gets versions ready, one at a time."""

    def __init__(self, *, registry: Registry, cache: Cache, at: At, trial_s: float = TRIAL_S) -> None:
        """Args:
        registry: this worker's own, which is looked at first: a folder has another path elsewhere.
        cache: where fetched versions stay, shared by the workers of this machine.
        trial_s: how long the child may take.
        """
        self._registry = registry
        self._cache = cache
        self._at = at
        self._trial_s = trial_s
        self._newest: Runtime | None = None
        """The version that was loaded last. The next one shares its compiled code, if it has the same."""

    def load(
        self, promotion: Promotion, segment_length: int | None, superseded: Callable[[], bool] = lambda: False
    ) -> Served:
        """The version of a promotion, ready to serve.

        Args:
            segment_length: of what is stored; None if it is not known.
            superseded: asked between the steps; True ends the work.

        Raises:
            Superseded: `superseded` said so.
            VersionUnavailable: it cannot be fetched at the moment.
            ModelError: any other one means that this version cannot serve here.
        """
        if segment_length not in (None, promotion.segment_length):
            raise VersionUnfit(
                f"{promotion.version} folds every {promotion.segment_length} interactions, and the stored state was built by "
                f"folding every {segment_length}"
            )
        folder = self._fetched(promotion)
        self._at(Point.MODEL_FETCHED)
        _unless(superseded)
        try:
            self._try(folder, promotion)
            self._at(Point.MODEL_TRIED)
            _unless(superseded)
            return self._loaded(folder, promotion)
        except ModelError:
            self._cache.refused(folder)
            raise

    def configured(self, reference: str | None) -> Served:
        """The version that the settings name. Raises ModelError: it is not there, or cannot be loaded."""
        return self._served(self._cache.fetch(self._registry.resolve(reference)), "configured")

    def local(self) -> Served | None:
        """The version used last on this machine, from its cache alone; None if there is none that can serve."""
        folder = self._cache.newest()
        if folder is None:
            return None
        try:
            return self._served(folder, "local")
        except ModelError as error:
            logger.warning("local version passed over folder=%s: %s", folder, error)
            return None

    def _fetched(self, promotion: Promotion) -> Path:
        """A copy on this machine. If it is there already, no registry is asked.

        Raises:
            VersionUnavailable: it can be had nowhere.
            DigestMismatch: where it should be is another version.
        """
        if (there := self._cache.find(promotion.sha256)) is not None:
            return there
        failed: list[ModelError] = []
        for place in places(promotion, self._registry):
            try:
                return self._cache.fetch(place)
            except (DigestMismatch, VersionUnavailable) as error:
                failed.append(error)
        if isinstance(failed[-1], DigestMismatch):
            raise failed[-1]
        raise VersionUnavailable("; ".join(map(str, failed)))

    def _try(self, folder: Path, promotion: Promotion) -> None:
        passed = folder / f".passed-{torch.__version__}"
        if passed.exists():
            return
        began = time.monotonic()
        trial = tried(folder, promotion.sha256, timeout_s=self._trial_s, memory_bytes=None)
        if trial.why is not None:
            raise VersionUnfit(f"{promotion.version} failed its trial: {trial.why}")
        logger.info(
            "version tried model=%s seconds=%.1f list_p95_ms=%.1f rss_mb=%.0f",
            promotion.version,
            time.monotonic() - began,
            trial.p95_ms or 0.0,
            (trial.rss_bytes or 0) / 1e6,
        )
        passed.touch()  # for the other workers of this machine, and for the next start

    def _loaded(self, folder: Path, promotion: Promotion) -> Served:
        one_thread()  # torch counts threads for each thread that calls it
        found = Runtime.load(folder, promotion.sha256, self._newest)
        if (found.reference, found.memory_format, found.segment_length) != (
            promotion.version,
            promotion.memory_format,
            promotion.segment_length,
        ):
            raise VersionUnfit(
                f"the promotion says {promotion.version} of memory format {promotion.memory_format} and segment length "
                f"{promotion.segment_length}, and the version is {found.reference} of {found.memory_format} and "
                f"{found.segment_length}"
            )
        self._at(Point.MODEL_LOADED)
        self._newest = found
        return Served(Recommender(found, promotion.id), promotion.sha256, "promoted", promotion.id)

    def _served(self, folder: Path, source: Source) -> Served:
        """The version in a folder of the cache, which no promotion named."""
        sha256 = CheckedFiles.at(folder).sha256
        self._newest = Runtime.load(folder, sha256)
        return Served(Recommender(self._newest), sha256, source)


def _unless(superseded: Callable[[], bool]) -> None:
    if superseded():
        raise Superseded
