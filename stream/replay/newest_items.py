"""The same model without a memory: each list comes from the user's newest items alone. It shows what a memory adds."""

from collections.abc import Iterator

import numpy as np

from stream.policy import list_after
from stream.recommender import Query
from stream.replay.feed import Feed, Ints, Places
from stream.replay.timed import TimedRecommender
from stream.step import Rules
from stream.wire import Recommendation


def lists_of_newest_items(
    feed: Feed, recommender: TimedRecommender, rules: Rules, start: int, end: int
) -> list[tuple[bytes, Recommendation]]:
    """The lists after some interactions, from the user's newest items, as many as a working memory can have.

    A list leaves out the same items as that of a worker.
    """
    model, length = recommender.model, recommender.model.segment_length
    at = np.arange(start, end)
    place = feed.place[at]
    taken = place - feed.begins[at] + 1
    due = np.array([_due(rules, int(each), length) for each in taken], bool)
    at, place, taken = at[due], place[due], taken[due]
    if not len(at):
        return []
    folds, working = taken // length, taken % length
    excluded = {
        "none": np.zeros_like(taken),
        "working": working,
        "kept": working + np.minimum(folds, rules.keep_segments) * length,
    }[rules.exclude]
    newest = np.minimum(taken, length - 1)
    queries = [
        Query(None, items, exclude, None, times if model.uses_time else b"", int(feed.times[each]))
        for each, items, exclude, times in zip(
            at.tolist(),
            _cut(feed.items, feed.by_user, place, newest),
            _cut(feed.items, feed.by_user, place, excluded),
            _cut(feed.times, feed.by_user, place, newest),
            strict=True,
        )
    ]
    made = recommender.recommend(queries, rules.top_k)
    return [
        (
            feed.users[feed.user[each]],
            Recommendation(
                items=found.items,
                scores=found.scores,
                as_of=int(feed.times[each]),
                partition=feed.partition,
                offset=int(feed.offsets[each]),
                taken=had,
                folds=had // length,
                model=model.reference,
                source=found.source,
            ),
        )
        for each, had, found in zip(at.tolist(), taken.tolist(), made, strict=True)
    ]


def _due(rules: Rules, taken: int, length: int) -> bool:
    """Whether a worker makes a list after this interaction."""
    before = taken - 1
    return bool(list_after(rules.cadence, before // length, before % length, 1, length))


def _cut(column: Ints, by_user: Places, place: Places, counts: Places) -> Iterator[bytes]:
    """The newest numbers of a user up to each place in `by_user`."""
    for last, count in zip(place.tolist(), counts.tolist(), strict=True):
        yield column[by_user[last + 1 - count : last + 1]].tobytes()
