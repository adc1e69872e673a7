"""What a worker does about promotions: which one counts, what it reports, and what it does when one is no good."""

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from model.errors import DigestMismatch, ModelError, VersionUnavailable
from stream.promotion.follow import Following
from stream.promotion.loading import Superseded
from stream.promotion.record import Models, Promotion, Report, alias_key, encode, promotion_key
from stream.recommender import Recommender
from stream.serving import Served, Serving
from tests.fakes import FakeModel
from tests.stream.promotion import promotions

SHA = {number: f"{number:x}" * 64 for number in range(1, 10)}


def model(number: int) -> FakeModel:
    made = FakeModel(4)
    made.reference = f"films@{number}"
    return made


def promotion(number: int, alias: str = "champion") -> Promotion:
    return promotions.promotion(
        f"films@{number}", alias=alias, sha256=SHA[number], memory_format="fake/1", segment_length=4
    )


@dataclass
class FakeReader:
    """The topic, record by record."""

    models: Models = field(default_factory=Models)
    at_end: bool = True
    coming: list[Promotion] = field(default_factory=list)

    def poll(self, timeout_s: float) -> bool:
        if not self.coming:
            return False
        self.come(self.coming.pop(0))
        return True

    def come(self, *promotions: Promotion) -> None:
        for each in promotions:
            self.models.apply(promotion_key(each.id), encode(each))
            self.models.apply(alias_key(each.alias), encode(each))

    def close(self) -> None:
        pass


@dataclass
class FakeReports:
    told: list[Report] = field(default_factory=list)

    def report(self, report: Report) -> None:
        self.told.append(report)

    def gone(self) -> None:
        pass

    def close(self) -> None:
        pass

    def words(self) -> list[tuple[str, str | None, str | None, str | None]]:
        return [(each.state, each.serves, each.of, each.why) for each in self.told]


@dataclass
class FakeLoader:
    """Loads at once, or raises what the test says."""

    wrong: dict[str, Exception] = field(default_factory=dict)
    loaded: list[str] = field(default_factory=list)
    within: Callable[[], object] = lambda: None

    def load(
        self, wanted: Promotion, segment_length: int | None, superseded: Callable[[], bool] = lambda: False
    ) -> Served:
        self.loaded.append(wanted.version)
        self.within()
        if superseded():
            raise Superseded
        if wanted.version in self.wrong:
            raise self.wrong[wanted.version]
        number = int(wanted.version.partition("@")[2])
        return Served(Recommender(model(number)), wanted.sha256, "promoted", wanted.id)


class Scene:
    def __init__(self, alias: str | None = "champion") -> None:
        self.now = 0.0
        self.reader, self.reports, self.loader = FakeReader(), FakeReports(), FakeLoader()
        self.serving = Serving(Served(Recommender(model(1)), SHA[1], "configured"))
        self.following = Following(
            worker="w1",
            alias=alias,
            reader=self.reader,
            reports=self.reports,
            loader=self.loader,  # type: ignore[arg-type]
            serving=self.serving,
            wall_ms=lambda: 7,
            clock=lambda: self.now,
        )

    def turn(self) -> None:
        self.following.turn(0.0)

    def loop(self) -> None:
        """What the loop of steps does between two steps; it publishes a step at once."""
        self.serving.take()
        self.serving.proved()


def test_a_worker_reports_what_it_serves_once_and_each_change_of_it() -> None:
    scene = Scene()
    scene.turn()
    scene.turn()
    wanted = promotion(2)
    scene.reader.come(wanted)
    scene.turn()
    scene.loop()
    scene.turn()
    scene.turn()
    assert scene.reports.words() == [
        ("serving", "films@1", None, None),
        ("loading", "films@1", "films@2", None),
        ("serving", "films@2", None, None),
    ]
    last = scene.reports.told[-1]
    assert (last.source, last.promotion, last.sha256) == ("promoted", wanted.id, SHA[2])
    assert scene.serving.as_promoted


def test_of_a_backlog_only_the_newest_record_is_loaded() -> None:
    scene = Scene()
    scene.reader.come(*(promotion(number) for number in range(2, 8)))
    scene.turn()
    assert scene.loader.loaded == ["films@7"]


def test_a_version_that_is_superseded_while_it_is_fetched_is_dropped() -> None:
    scene = Scene()
    scene.reader.come(promotion(2))
    scene.loader.within = lambda: scene.reader.coming.append(promotion(3)) if len(scene.loader.loaded) == 1 else None
    scene.turn()
    assert scene.serving.take() is None
    scene.turn()
    offered = scene.serving.take()
    assert offered is not None
    assert offered.reference == "films@3"
    assert scene.serving.came_of_it["superseded"] == 1


@pytest.mark.parametrize(
    "error",
    [DigestMismatch("another file"), ModelError("contract"), OSError("disk full")],
    ids=lambda error: type(error).__name__,
)
def test_a_bad_version_leaves_the_former_one_and_the_next_good_one_serves(error: Exception) -> None:
    scene = Scene()
    scene.loader.wrong["films@2"] = error
    scene.reader.come(promotion(2))
    for _ in range(3):
        scene.turn()
        scene.loop()
    assert scene.loader.loaded == ["films@2"], "it is not tried again and again"
    assert scene.reports.words()[-1] == ("refused", "films@1", "films@2", str(error))
    assert not scene.serving.as_promoted
    scene.reader.come(promotion(3))
    scene.turn()
    scene.loop()
    scene.turn()
    assert scene.reports.words()[-1] == ("serving", "films@3", None, None)
    assert scene.serving.came_of_it == {"served": 1, "refused": 1, "superseded": 0}


def test_a_version_that_cannot_be_fetched_is_tried_again_with_longer_pauses() -> None:
    scene = Scene()
    scene.loader.wrong["films@2"] = VersionUnavailable("the bucket does not answer")
    scene.reader.come(promotion(2))
    for _ in range(600):
        scene.turn()
        scene.now += 0.1
    assert 3 <= len(scene.loader.loaded) <= 6
    assert scene.reports.words() == [
        ("loading", "films@1", "films@2", None),
        ("waiting", "films@1", "films@2", "the bucket does not answer"),
    ]
    del scene.loader.wrong["films@2"]
    for _ in range(600):
        scene.turn()
        scene.now += 0.1
        scene.loop()
    assert scene.reports.words()[-1] == ("serving", "films@2", None, None)


def test_a_newer_promotion_need_not_wait_for_the_pause() -> None:
    scene = Scene()
    scene.loader.wrong["films@2"] = VersionUnavailable("the bucket does not answer")
    scene.reader.come(promotion(2))
    scene.turn()
    scene.reader.come(promotion(3))
    scene.turn()
    assert scene.loader.loaded == ["films@2", "films@3"]


def test_the_version_that_serves_is_not_loaded_again_when_it_is_promoted() -> None:
    scene = Scene()
    scene.reader.come(promotion(1))
    scene.turn()
    assert scene.loader.loaded == []
    told = scene.reports.told[-1]
    assert (told.state, told.serves, told.source) == ("serving", "films@1", "promoted")


def test_a_version_that_failed_in_its_first_step_is_reported_as_refused_and_not_tried_again() -> None:
    scene = Scene()
    scene.reader.come(promotion(2))
    scene.turn()
    scene.serving.take()
    scene.serving.back("numbers that are not finite")
    for _ in range(3):
        scene.turn()
    assert scene.reports.words()[-1] == (
        "refused",
        "films@1",
        "films@2",
        "films@2 failed in its first step: numbers that are not finite",
    )
    assert scene.loader.loaded == ["films@2"]


def test_another_alias_is_nobodys_business_and_none_is_followed_without_one() -> None:
    scene = Scene()
    scene.reader.come(promotion(2, alias="challenger"))
    scene.turn()
    assert scene.loader.loaded == []
    pinned = Scene(alias=None)
    pinned.reader.come(promotion(2))
    pinned.turn()
    assert pinned.loader.loaded == []
    assert pinned.reports.words() == [("serving", "films@1", None, None)]
