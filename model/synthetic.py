"""A synthetic event log in which memory helps: users return to a few favourite genres.

Every interaction of a user is either from one of their favourite genres, which never change, or from the genre of the
session, which mostly stays the same from one interaction to the next. A recommender that sees only the newest items
knows the genre of the session. Favourites are for memory. Popularity is skewed within a genre, so a popularity list is
a useful baseline.
"""

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

_DAY_MS = 86_400_000

_NAMES = """
    anna ben carla dmitri elif farid grace hana ivan jonas keiko lena marco nadia omar priya quentin rosa sami tara ugo
    vera wanda xavier yara zoe
""".split()  # noqa: SIM905
_GENRES = """
    western noir comedy horror musical romance mystery fantasy heist courtroom sport nature travel history space spy
    family war food science opera silent road ghost ocean school robot island circus winter
""".split()  # noqa: SIM905
_ADJECTIVES = """
    silent golden broken distant hidden crimson electric velvet lonely burning frozen restless paper midnight second
    hollow gentle stolen northern wild patient scarlet secret tall blue final early bitter quiet open
""".split()  # noqa: SIM905
_NOUNS = """
    river harbour garden letter station mirror orchard lantern engine window island promise shadow bridge market summer
    stranger compass theatre mountain voyage corridor kingdom melody signal desert winter carousel archive horizon
""".split()  # noqa: SIM905


@dataclass(frozen=True, slots=True)
class SyntheticLog:
    """What the log looks like. Shares are probabilities per interaction.

    `favourite_share`: how often a user follows a favourite genre and not that of the session. `stickiness`: how often
    the session keeps its genre if one interaction follows another at once; it halves with every `drift_half_life_days`
    between them. The number of interactions per user is log-normal around `interactions_median`. `popularity_skew` is
    the exponent of the Zipf law within a genre.
    """

    users: int = 1_500
    items: int = 900
    genres: int = 30
    favourites: int = 3
    favourite_share: float = 0.4
    stickiness: float = 0.9
    drift_half_life_days: float = 2.0
    interactions_median: float = 60.0
    interactions_spread: float = 0.6
    popularity_skew: float = 1.0
    days: float = 30.0
    start_ms: int = 1_767_225_600_000
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.genres <= len(_GENRES) or self.favourites > self.genres:
            raise ValueError(
                f"genres is {self.genres}, must be in 1..{len(_GENRES)} and at least favourites ({self.favourites})"
            )
        if not self.genres <= self.items <= len(_ADJECTIVES) * len(_NOUNS):
            raise ValueError(
                f"items is {self.items}, must be from {self.genres}, one per genre, to {len(_ADJECTIVES) * len(_NOUNS)}, the number of titles"
            )
        if self.users < 1:
            raise ValueError(f"users is {self.users}, must be at least 1")


@dataclass(frozen=True, slots=True)
class Generated:
    """`interactions`: user_id str, item_id str, timestamp int64 ms, in time order. `items`: item_id, title, genre; the
    ids are slugs.
    """

    interactions: pl.DataFrame
    items: pl.DataFrame

    def with_genres(self) -> pl.DataFrame:
        """The interactions, and the genre of each one's item in a column `genre`."""
        return self.interactions.join(
            self.items.select("item_id", "genre"), on="item_id", how="left", maintain_order="left"
        )


def generate(log: SyntheticLog) -> Generated:
    """The log these parameters describe; the same for the same parameters."""
    rng = np.random.default_rng(log.seed)
    items = _items(log, rng)
    counts = np.maximum(
        2, np.exp(rng.normal(np.log(log.interactions_median), log.interactions_spread, log.users))
    ).astype(np.int64)
    user = np.repeat(np.arange(log.users), counts)
    times = _times(log, rng, user)
    genre = _genres(log, rng, user, times)
    item = _choose(log, rng, user, genre)
    names = np.array([f"{_NAMES[i % len(_NAMES)]}-{i // len(_NAMES):04d}" for i in range(log.users)])
    interactions = pl.DataFrame(
        {"user_id": names[user], "item_id": items["item_id"].to_numpy()[item], "timestamp": times}
    )
    return Generated(interactions.sort("timestamp", maintain_order=True), items)


def _items(log: SyntheticLog, rng: np.random.Generator) -> pl.DataFrame:
    """Titles are unique, a pair of words each, drawn without replacement. Item i has genre i modulo the number of
    genres.
    """
    pair = rng.permutation(len(_ADJECTIVES) * len(_NOUNS))[: log.items]
    words = [(_ADJECTIVES[p // len(_NOUNS)], _NOUNS[p % len(_NOUNS)]) for p in pair]
    return pl.DataFrame(
        {
            "item_id": [f"{adjective}-{noun}" for adjective, noun in words],
            "title": [f"The {adjective.capitalize()} {noun.capitalize()}" for adjective, noun in words],
            "genre": [_GENRES[i % log.genres] for i in range(log.items)],
        }
    )


def _times(log: SyntheticLog, rng: np.random.Generator, user: NDArray[np.int64]) -> NDArray[np.int64]:
    """Every user is active in bursts of about eight within half an hour, spread over the days."""
    day = rng.random(len(user)) * log.days
    burst = np.empty(len(user), bool)
    burst[0] = True
    burst[1:] = (rng.random(len(user) - 1) < 1 / 8) | (user[1:] != user[:-1])
    start = day[burst][np.cumsum(burst) - 1] * _DAY_MS
    times: NDArray[np.int64] = (log.start_ms + start + rng.random(len(user)) * 1_800_000).astype(np.int64)
    ordered: NDArray[np.int64] = times[np.lexsort((times, user))]
    return ordered


def _genres(
    log: SyntheticLog, rng: np.random.Generator, user: NDArray[np.int64], times: NDArray[np.int64]
) -> NDArray[np.int64]:
    """The genre of every interaction; `user` and `times` sorted by user and then time."""
    favourite: NDArray[np.int64] = rng.random((log.users, log.genres)).argsort(axis=1)[:, : log.favourites]
    idle_days = np.diff(times, prepend=times[:1]) / _DAY_MS
    stays = rng.random(len(user)) < log.stickiness * 0.5 ** (np.maximum(idle_days, 0.0) / log.drift_half_life_days)
    stays &= np.diff(user, prepend=-1) == 0
    # A session's genre is the one drawn where the session began: the last place before which nothing stayed.
    began = np.maximum.accumulate(np.where(stays, 0, np.arange(len(user))))
    session = rng.integers(0, log.genres, len(user))[began]
    follows = rng.random(len(user)) < log.favourite_share
    genre: NDArray[np.int64] = np.where(follows, favourite[user, rng.integers(0, log.favourites, len(user))], session)
    return genre


def _choose(
    log: SyntheticLog, rng: np.random.Generator, user: NDArray[np.int64], genre: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Items of the wanted genres. Within a genre a user draws by a Zipf law, without replacement until all items are
    drawn.
    """
    size = -(-log.items // log.genres)
    members = np.arange(size)[:, None] * log.genres + np.arange(
        log.genres
    )  # (size, genres): the items of a genre, best known first
    weight = np.broadcast_to(1.0 / np.arange(1, size + 1)[:, None] ** log.popularity_skew, members.shape)
    # Ordering by exponential times divided by weights is drawing without replacement by weight.
    wait = np.where(members < log.items, rng.exponential(size=(log.users, size, log.genres)) / weight, np.inf)
    order = wait.argsort(axis=1)  # (users, size, genres)
    nth = _occurrence(user * log.genres + genre) % (members < log.items).sum(axis=0)[genre]
    chosen: NDArray[np.int64] = members[order[user, nth, genre], genre]
    return chosen


def _occurrence(key: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many earlier entries equal each entry."""
    order = np.argsort(key, kind="stable")
    ordered = key[order]
    first = np.flatnonzero(np.diff(ordered, prepend=ordered[:1] - 1))
    runs = np.diff(np.append(first, len(key)))
    occurrence = np.empty(len(key), np.int64)
    occurrence[order] = np.arange(len(key)) - np.repeat(first, runs)
    return occurrence
