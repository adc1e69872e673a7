"""Which version a worker serves when it starts.

What the topic says comes first: a restart must not bring back an older version. If nothing is promoted, the settings
decide. If the promoted version cannot be had, the newest version on this machine serves until it can; without one the
worker waits, and is not ready.
"""

import logging
import time
from collections.abc import Callable
from typing import Final

from model.errors import ModelError
from stream.promotion.follow import Reader
from stream.promotion.loading import Loader
from stream.promotion.record import Promotion
from stream.serving import Served

logger = logging.getLogger(__name__)

_TRY_EVERY_S: Final = 5.0
_SAY_EVERY_S: Final = 60.0
_LOOK_S: Final = 0.5
_SAY_SLOW_S: Final = 10.0


def first_version(
    *,
    loader: Loader,
    configured: str | None,
    alias: str | None,
    reader: Reader,
    waiting: Callable[[Promotion, str], None],
    clock: Callable[[], float] = time.monotonic,
) -> Served:
    """The version to begin with, loaded.

    Args:
        configured: REC2PM_MODEL.
        alias: which promotions count; None: none do.
        reader: of the topic with the promotions.
        waiting: called with the promotion and the reason while there is no version to serve: once for each of
            its reasons.
        clock: monotonic seconds.

    Raises:
        ModelError: nothing is promoted, and what the settings name cannot be loaded.
    """
    if alias is None:
        served = loader.configured(configured)
        logger.info("model=%s: REC2PM_FOLLOW=none pins REC2PM_MODEL", served.reference)
        return served
    _read_to_its_end(reader)
    said_at = -_SAY_EVERY_S
    told: tuple[str, str] | None = None
    while True:
        promotion = reader.models.aliases.get(alias)
        if promotion is None:
            served = loader.configured(configured)
            logger.info("model=%s from REC2PM_MODEL: nothing is promoted to %s", served.reference, alias)
            return served
        try:
            served = loader.load(promotion, None)
        except (ModelError, OSError) as error:
            why = str(error)
        else:
            logger.info(
                "model=%s promoted to %s by %s, which comes before REC2PM_MODEL",
                served.reference,
                alias,
                promotion.who,
            )
            return served
        if (local := loader.local()) is not None:
            logger.warning(
                "model=%s: the newest version on this machine, because %s, which is promoted to %s, cannot be had: %s",
                local.reference,
                promotion.version,
                alias,
                why,
            )
            return local
        if told != (promotion.id, why):
            told = promotion.id, why
            waiting(promotion, why)
        if clock() - said_at > _SAY_EVERY_S:
            said_at = clock()
            logger.error(
                "no model to serve, tried again every %.0f s: %s, which is promoted to %s, cannot be had: %s",
                _TRY_EVERY_S,
                promotion.version,
                alias,
                why,
            )
        _wait_for_another(reader, alias, promotion.id, clock)


def _wait_for_another(reader: Reader, alias: str, promotion: str, clock: Callable[[], float]) -> None:
    """Until something else is promoted, at most until the next attempt. Reports of workers come on the same topic."""
    deadline = clock() + _TRY_EVERY_S
    while (left_s := deadline - clock()) > 0:
        reader.poll(left_s)
        now = reader.models.aliases.get(alias)
        if now is None or now.id != promotion:
            return


def _read_to_its_end(reader: Reader) -> None:
    said_at = time.monotonic()
    while not reader.at_end:
        reader.poll(_LOOK_S)
        if time.monotonic() - said_at > _SAY_SLOW_S:
            said_at = time.monotonic()
            logger.warning("waiting for Kafka: which version is promoted is not known yet")
