"""What a worker says once about its input: keys, times or items that look as if two programs write them in two ways.

Nothing here changes what a step does.
"""

import logging
from typing import Final

from model.version.unknown_items import both_sides
from state.user import packed
from stream.decode import Polled
from stream.key_check import KeyCheck
from stream.policy import LEAST_KNOWN, KnownShare
from stream.ports import Counts
from stream.recommender import Recommender

logger = logging.getLogger(__name__)


class Doubts:
    """What has been said of the input, and when it is to be said again."""

    def __init__(self, topic: str, key_check: KeyCheck) -> None:
        """`topic`: the interactions topic."""
        self._topic: Final = topic
        self._key_check: Final = key_check
        self._known: Final = KnownShare()
        self._said_implausible = False

    def note(self, polled: Polled, counts: Counts, width: int, recommender: Recommender) -> None:
        """Look at a step, and add to its counts what was found.

        Args:
            width: the number of partitions of the topic.
            recommender: what computed the step.
        """
        self._note_keys(polled, counts, width)
        self._note_times(polled)
        self._note_items(polled, counts, recommender)

    def _note_keys(self, polled: Polled, counts: Counts, width: int) -> None:
        """Count the keys that are in another partition than their own, and say so once."""
        found = self._key_check.compare(polled.runs, width)
        counts.keys_compared, counts.keys_misplaced = found.keys, found.misplaced
        for warning in found.warnings:
            logger.warning("%s", warning)

    def _note_times(self, polled: Polled) -> None:
        """Say once that times are not plausible; the metric counts them."""
        if not polled.implausible or self._said_implausible:
            return
        self._said_implausible = True
        logger.warning(
            "%d of %d records of %s have a time that is not plausible, one is %s: the timestamps of the records are "
            "taken instead. REC2PM_TIME_UNIT states the unit of times, REC2PM_TIME_RANGE the plausible ones. This is "
            "said once; the metric rec2pm_implausible_times_total counts on",
            len(polled.implausible),
            polled.records,
            self._topic,
            ascii(polled.implausible[0].value)[:40],
        )

    def _note_items(self, polled: Polled, counts: Counts, recommender: Recommender) -> None:
        """Say once when the model knows few of the newest items, with ids of both sides."""
        if self._known.fell_with(len(polled.items), counts.unknown_items):
            names = {key: text for named in polled.names.values() for key, text in named.items()}
            lacked = [names.get(key, key) for key in recommender.lacked(packed(polled.items)).tolist()]
            logger.warning(
                "few items known model=%s: its catalogue has %d of the newest %d items, less than %.0f %%. Unknown are %s. "
                "Ids must be the same in the log of the training and in the topic",
                recommender.model.reference,
                self._known.known,
                self._known.items,
                100 * LEAST_KNOWN,
                both_sides(lacked, recommender.model.item_ids),
            )
