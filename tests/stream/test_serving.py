"""A version is swapped between two steps, and the former one comes back if the new one fails in its first step."""

from pathlib import Path

from model.errors import ModelFailed
from stream.recommender import Floats, Ints, Recommender
from stream.serving import Served, Serving
from stream.worker import Worker
from tests.fakes import FakeFolded, FakeLink, FakeModel, FakeRanked, FakeRecord, said, worker_on


class Named(FakeModel):
    """The same arithmetic under another name, in the same memory format."""

    def __init__(self, reference: str, fails: bool = False) -> None:
        super().__init__(4)
        self.reference = reference
        self.fails = fails

    def fold(self, memory: Floats, rows: Ints, times: Ints | None = None) -> FakeFolded:
        self._fail()
        return super().fold(memory, rows, times)

    def _ranked(self, seeds: object, k: int, exclude: Ints) -> FakeRanked:
        self._fail()
        return super()._ranked(seeds, k, exclude)  # type: ignore[arg-type]

    def _fail(self) -> None:
        if self.fails:
            raise ModelFailed(f"{self.reference} failed in recommend: as the test wants")


def served(model: FakeModel, promotion: str = "") -> Served:
    return Served(Recommender(model), model.reference.encode().hex().ljust(64, "0"), "promoted", promotion)


def serving_worker(folder: Path, first: FakeModel, records: int = 6) -> tuple[Worker, FakeLink, Serving]:
    serving = Serving(served(first))
    link = FakeLink([FakeRecord(b"ann", said(item, item), 0, item) for item in range(records)], list(range(records)))
    return worker_on(link, folder, first, serving=serving), link, serving


def models(link: FakeLink) -> list[str]:
    return [made.model for _, made in link.lists() if made is not None]


def test_the_next_step_is_of_the_version_that_was_offered_last(tmp_path: Path) -> None:
    worker, link, serving = serving_worker(tmp_path, Named("a@1"))
    worker.turn()
    serving.offer(served(Named("a@2"), "p2"))
    serving.offer(served(Named("a@3"), "p3"))
    worker.turn()
    worker.turn()
    assert models(link) == ["a@1", "a@3", "a@3"]
    assert [(came.version.reference, came.why_not) for came in serving.news()] == [("a@3", None)]
    assert serving.news() == []
    assert (serving.serves.reference, serving.serves.promotion, serving.former) == ("a@3", "p3", None)
    worker.partitions.close()


def test_a_version_that_fails_in_its_first_step_is_taken_back_and_the_step_is_of_the_former_one(tmp_path: Path) -> None:
    worker, link, serving = serving_worker(tmp_path, Named("a@1"))
    worker.turn()
    serving.offer(served(Named("a@2", fails=True)))
    worker.turn()
    worker.turn()
    assert models(link) == ["a@1", "a@1", "a@1"]
    assert all(not outgoing.dead for outgoing in link.published)
    came = serving.news()
    assert [each.version.reference for each in came] == ["a@2", "a@2"]
    assert came[0].why_not is None
    assert "as the test wants" in str(came[1].why_not)
    assert serving.serves.reference == "a@1"
    worker.partitions.close()


def test_a_version_that_never_published_is_not_what_one_goes_back_to(tmp_path: Path) -> None:
    worker, link, serving = serving_worker(tmp_path, Named("a@1"))
    for offered in (Named("a@2", fails=True), Named("a@3", fails=True)):
        serving.offer(served(offered))
        worker._swap()
    worker.turn()
    assert models(link) == ["a@1"]
    assert serving.serves.reference == "a@1"
    worker.partitions.close()


def test_records_that_every_version_fails_on_are_no_fault_of_the_new_one(tmp_path: Path) -> None:
    first, second = Named("a@1", fails=True), Named("a@2", fails=True)
    worker, link, serving = serving_worker(tmp_path, first)
    serving.offer(served(second))
    worker.turn()
    assert [len(outgoing.dead) for outgoing in link.published] == [1]
    assert serving.serves.reference == "a@2"
    first.fails = second.fails = False
    worker.turn()
    assert models(link) == ["a@2"]
    worker.partitions.close()


def test_after_its_first_published_step_a_version_stays_though_it_fails(tmp_path: Path) -> None:
    second = Named("a@2")
    worker, link, serving = serving_worker(tmp_path, Named("a@1"))
    serving.offer(served(second))
    worker.turn()
    second.fails = True
    worker.turn()
    assert serving.serves.reference == "a@2"
    assert len(link.published[-1].dead) == 1
    worker.partitions.close()


def test_an_aborted_step_proves_nothing(tmp_path: Path) -> None:
    second = Named("a@2")
    worker, link, serving = serving_worker(tmp_path, Named("a@1"))
    serving.offer(served(second))
    link.refusals = 1
    worker.turn()
    assert serving.former is not None
    second.fails = True
    while not models(link):
        worker.turn()
    assert models(link) == ["a@1"]
    worker.partitions.close()


def test_the_version_that_serves_promoted_again_drops_an_offer_that_nobody_took(tmp_path: Path) -> None:
    first = Named("a@1")
    worker, link, serving = serving_worker(tmp_path, first)
    serving.offer(served(Named("a@2")))
    assert serving.serves_already("a@1", served(first).sha256, "again")
    assert not serving.serves_already("a@1", "f" * 64, "other files")
    worker.turn()
    assert models(link) == ["a@1"]
    assert (serving.serves.promotion, serving.serves.source) == ("again", "promoted")
    worker.partitions.close()
