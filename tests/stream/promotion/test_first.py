"""Which version a worker begins with: what the topic says, what the settings name, what it has, or none yet."""

import logging
from dataclasses import dataclass, field
from itertools import count, pairwise
from typing import Any

import pytest

from model.errors import DigestMismatch, ModelNotFound, VersionUnavailable
from stream.promotion.first import first_version
from stream.promotion.record import Promotion
from stream.recommender import Recommender
from stream.serving import Served
from tests.stream.promotion.test_follow import SHA, FakeLoader, FakeReader, model, promotion


@dataclass
class StartLoader(FakeLoader):
    there: Served | None = None
    """The newest version on the machine."""
    named: list[str | None] = field(default_factory=list)

    def configured(self, reference: str | None) -> Served:
        self.named.append(reference)
        if reference == "nothing":
            raise ModelNotFound("no such model")
        return Served(Recommender(model(1)), SHA[1], "configured")

    def local(self) -> Served | None:
        return self.there


@dataclass
class Late(FakeReader):
    """Comes to the end of the topic after some polls, and changes its records at one of them."""

    polls: int = 0
    end_after: int = 3
    then: Promotion | None = None

    def poll(self, timeout_s: float) -> bool:
        self.polls += 1
        self.at_end = self.polls >= self.end_after
        if self.polls == self.end_after and self.then is not None:
            self.come(self.then)
        return self.at_end


def first(
    loader: StartLoader, reader: FakeReader, alias: str | None = "champion", configured: str | None = "films@1"
) -> tuple[Served, list[str]]:
    waited: list[str] = []

    def waits(_: Promotion, why: str) -> None:
        waited.append(why)
        loader.wrong.clear()  # what was wrong is mended by the next attempt

    served = first_version(
        loader=loader,  # type: ignore[arg-type]
        configured=configured,
        alias=alias,
        reader=reader,
        waiting=waits,
        clock=count().__next__,
    )
    return served, waited


def test_the_settings_decide_until_something_is_promoted(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    served, _ = first(StartLoader(), FakeReader())
    assert (served.reference, served.source) == ("films@1", "configured")
    assert "from REC2PM_MODEL: nothing is promoted to champion" in caplog.text


def test_what_is_promoted_comes_before_the_settings_also_if_the_settings_name_nothing_that_is_there() -> None:
    reader = FakeReader()
    reader.come(promotion(2))
    served, _ = first(StartLoader(), reader, configured="nothing")
    assert (served.reference, served.source) == ("films@2", "promoted")


def test_the_topic_is_read_to_its_end_before_anything_is_loaded() -> None:
    loader = StartLoader()
    served, _ = first(loader, Late(at_end=False, then=promotion(3)))
    assert served.reference == "films@3"
    assert loader.named == []


def test_a_pinned_worker_does_not_look_at_what_is_promoted() -> None:
    reader = FakeReader(at_end=False)
    reader.come(promotion(2))
    served, _ = first(StartLoader(), reader, alias=None)
    assert served.reference == "films@1"


@pytest.mark.parametrize("error", [VersionUnavailable("away"), DigestMismatch("another file"), OSError("disk full")])
def test_the_newest_version_on_the_machine_serves_while_the_promoted_one_cannot_be_had(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    reader = FakeReader()
    reader.come(promotion(2))
    loader = StartLoader({"films@2": error}, there=Served(Recommender(model(1)), SHA[1], "local"))
    served, waited = first(loader, reader)
    assert (served.reference, served.source, waited) == ("films@1", "local", [])
    assert f"films@2, which is promoted to champion, cannot be had: {error}" in caplog.text
    assert loader.named == [], "the settings may name a version that somebody has replaced"


def test_without_a_version_the_worker_waits_and_tries_again() -> None:
    reader = FakeReader()
    reader.come(promotion(2))
    served, waited = first(StartLoader({"films@2": VersionUnavailable("the bucket does not answer")}), reader)
    assert waited == ["the bucket does not answer"]
    assert (served.reference, served.source) == ("films@2", "promoted")


def test_a_worker_that_waits_says_so_once_and_tries_in_intervals_whatever_comes_on_the_topic() -> None:
    """Its own report comes back on the topic that it reads."""
    seconds, told = count(), []

    class Busy(FakeReader):
        def poll(self, timeout_s: float) -> bool:
            if next(seconds) > 600:
                self.come(promotion(3))
            return True

    class Counting(StartLoader):
        def load(self, *given: Any) -> Served:
            tries.append(next(seconds))
            return super().load(*given)

    tries: list[int] = []
    reader = Busy()
    reader.come(promotion(2))
    served = first_version(
        loader=Counting({"films@2": VersionUnavailable("away")}),  # type: ignore[arg-type]
        configured=None,
        alias="champion",
        reader=reader,
        waiting=lambda of, why: told.append((of.version, why)),
        clock=seconds.__next__,
    )
    assert served.reference == "films@3"
    assert told == [("films@2", "away")]
    assert min(later - earlier for earlier, later in pairwise(tries[:-1])) >= 5


def test_a_version_that_is_promoted_meanwhile_ends_the_wait() -> None:
    reader = Late(at_end=True, end_after=1, then=promotion(3))
    reader.come(promotion(2))
    loader = StartLoader({"films@2": DigestMismatch("another file")})
    served = first_version(
        loader=loader,  # type: ignore[arg-type]
        configured=None,
        alias="champion",
        reader=reader,
        waiting=lambda *_: None,
        clock=count().__next__,
    )
    assert served.reference == "films@3"


def test_nothing_promoted_and_a_wrong_setting_is_an_error_of_the_configuration() -> None:
    with pytest.raises(ModelNotFound, match="no such model"):
        first(StartLoader(), FakeReader(), configured="nothing")
