"""What live workers did beside `rec2pm explain`, which makes one list again."""

import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np

from model.version.registry import ModelVersion, Registry
from model.version.runtime import Runtime
from state.codec import Mark
from stream.explain.again import Explanation, again
from stream.explain.history import of_topic
from stream.kafka.models_topic import read_models
from stream.recommender import Recommender
from stream.replay.served import version_of
from stream.settings import Settings
from stream.step import Rules
from tests.same_lists import list_difference
from tests.verify.check import Check, none_of
from tests.verify.live import Lived

SEED: Final = 7


def explained(
    settings: Settings, lists: Iterable[Mapping[str, Any]]
) -> Iterator[tuple[Mapping[str, Any], Explanation, str | None]]:
    """Each list, how it is explained, and the first difference between the two.

    Args:
        settings: of the workers.
        lists: the fields of recommendations, and `user_id`.
    """
    kafka = {"bootstrap.servers": settings.bootstrap_servers, "group.id": f"{settings.app}.reader"}
    promoted, registry = read_models(kafka, settings.app), Registry(settings.models)

    @cache
    def runtime(version: ModelVersion) -> Runtime:
        return Runtime.load(version.uri, version.digest())

    def load(mark: Mark) -> Recommender:
        return Recommender(runtime(version_of(mark, promoted, registry)), mark.promotion)

    rules = Rules(settings.recommend, settings.top_k, settings.exclude, settings.keep_segments, settings.keep_formats)
    for published in lists:
        history, marks = of_topic(settings, kafka, published["partition"], published["offset"], lambda *_: None)
        with tempfile.TemporaryDirectory(prefix="rec2pm-explained-") as scratch:
            found = again(history, marks, rules, load, Path(scratch) / "store")
        made = {name: getattr(found.recommendation, name) for name in found.recommendation.__struct_fields__}
        difference = list_difference(published, made)
        if found.user != published["user_id"]:
            difference = f"the user was {published['user_id']}, and is {found.user} again"
        yield published, found, difference


def check(lived: Lived, count: int) -> Check:
    """Explain some of the lists, chosen at random."""
    began = time.monotonic()
    drawn = np.random.default_rng(SEED).permutation(len(lived.lists))[:count]
    settings = Settings.from_environ(lived.env)
    differing, versions, rebuilt = [], set(), 0
    for published, found, difference in explained(settings, (lived.lists.row(int(at), named=True) for at in drawn)):
        versions.add(found.version)
        rebuilt += found.missing_segments > 0
        if difference is not None:
            where = f"partition {published['partition']}, offset {published['offset']}"
            differing.append(f"user {published['user_id']}, {where}: {difference}")
    print(
        f"explained {len(drawn)} lists of {', '.join(sorted(versions))} in {time.monotonic() - began:.1f} s; "
        f"{rebuilt} are made from a memory that was rebuilt from part of a history",
        flush=True,
    )
    return none_of("each list is the one of `explain`", len(drawn), differing)
