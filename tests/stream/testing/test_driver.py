"""The driver, as somebody uses it who tests a pipeline: without a broker."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from model.errors import ModelNotFound
from stream.errors import SettingsInvalid
from stream.testing import Driver
from tests.model import tiny


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    tiny.add(root, seed=1)
    tiny.add(root, seed=2)
    return root


@pytest.fixture
def driver(models: Path) -> Iterator[Driver]:
    with Driver(models, "tiny@1", recommend=1, top_k=3) as made:
        yield made


def lived(driver: Driver, user: str, count: int) -> None:
    for at in range(count):
        driver.send(user, f"item-{1 + at % tiny.V}")


def test_an_interaction_makes_a_list_and_is_remembered(driver: Driver) -> None:
    assert driver.send("ann", "item-1") == 0
    (made,) = driver.lists()
    assert made.user == "ann"
    assert made.list is not None
    assert (made.list.taken, made.list.model, made.list.as_of) == (1, "tiny@1", driver.now_ms)
    assert len(made.list.items) == 3
    assert driver.lists() == []
    assert driver.newest_list("ann") == made.list
    row = driver.user("ann")
    assert row is not None
    assert (row.working_items, row.folds) == (["item-1"], 0)
    assert driver.user("bob") is None
    assert driver.newest_list("bob") is None


def test_time_stands_still_until_it_is_advanced(driver: Driver) -> None:
    driver.send("ann", "item-1")
    driver.advance(90)
    driver.send("ann", "item-2")
    driver.send("ann", "item-3", timestamp=driver.now_ms + 5)
    row = driver.user("ann")
    assert row is not None
    start = driver.now_ms - 90_000
    assert row.working_times == [start, start + 90_000, start + 90_005]


def test_a_step_of_several_interactions_is_one(models: Path) -> None:
    with Driver(models, recommend="interaction") as driver:
        driver.send_all([("ann", "item-1", None), ("bob", "item-2", None), ("ann", "item-3", None)])
        assert [(made.user, made.list.taken) for made in driver.lists() if made.list] == [("ann", 2), ("bob", 1)]
        assert driver.counts.steps == 1


def test_a_promoted_version_serves_from_the_next_step_on_and_rebuilds_memories_meanwhile(driver: Driver) -> None:
    lived(driver, "ann", tiny.L + 2)
    lived(driver, "bob", tiny.L + 2)
    driver.promote("tiny@2")
    assert driver.serves == "tiny@1"
    driver.send("ann", "item-9")
    assert driver.serves == "tiny@2"
    made = driver.newest_list("ann")
    assert made is not None
    assert (made.model, made.source, made.folds) == ("tiny@2", "memory", 1)
    before = driver.user("bob")
    driver.advance(10)
    after = driver.user("bob")
    assert before is not None
    assert after is not None
    assert (before.memory_format, after.prepared) != (after.memory_format, before.prepared)
    with pytest.raises(ModelNotFound):
        driver.promote("tiny@9")
    driver.send("ann", "item-10")
    assert driver.serves == "tiny@2"


def test_a_crash_loses_nothing(driver: Driver) -> None:
    lived(driver, "ann", tiny.L + 5)
    before = driver.user("ann")
    driver.crash()
    assert driver.user("ann") == before
    driver.send("ann", "item-9")
    after = driver.user("ann")
    assert after is not None
    assert after.taken == tiny.L + 6


def test_what_is_refused_is_a_dead_letter_with_its_reason(driver: Driver) -> None:
    driver.send_record(b"ann", b"not an interaction", {"trace": b"7"})
    (refused,) = driver.dead_letters()
    assert (refused.key, refused.value, refused.offset) == (b"ann", b"not an interaction", 0)
    assert "expected a MessagePack or JSON map" in refused.reason
    assert driver.dead_letters() == []
    assert driver.lists() == []


def test_a_forgotten_user_has_no_list_and_no_state(driver: Driver) -> None:
    lived(driver, "ann", 3)
    driver.forget("ann")
    assert driver.lists()[-1] == ("ann", None)
    assert driver.newest_list("ann") is None
    assert driver.user("ann") is None


def test_events_of_ones_own_shape_are_read_with_the_settings(models: Path) -> None:
    with Driver(models, item_field="product.id", event_field="type", events="view", recommend=1) as driver:
        for kind in ("view", "scroll"):
            driver.send_record(b"ann", json.dumps({"type": kind, "product": {"id": "item-4"}}).encode())
        row = driver.user("ann")
        assert row is not None
        assert row.working_items == ["item-4"]
        assert driver.counts.passed_over == 1
        with pytest.raises(ValueError, match="give their bytes to `send_record`"):
            driver.send("ann", "item-1")


@pytest.mark.parametrize(
    ("settings", "words"),
    [({"top": 3}, "REC2PM_TOP is not a setting"), ({"top_k": 0}, "REC2PM_TOP_K=0")],
)
def test_a_wrong_setting_is_refused_as_a_worker_refuses_it(models: Path, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingsInvalid, match=words):
        Driver(models, **settings)


def test_torch_has_its_threads_again(models: Path) -> None:
    torch.set_num_threads(2)
    with Driver(models):
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 2


def test_users_are_in_the_partitions_of_kafkas_own_clients(models: Path) -> None:
    """Hashes from the tests of Kafka's Java client (`UtilsTest.testMurmur2`), without the sign bit, modulo 4."""
    hashes = {"21": -973932308, "foobar": -790332482, "abc": 479470107}
    with Driver(models, partitions=4, recommend=1) as driver:
        for user in hashes:
            driver.send(user, "item-1")
        partitions = {made.user: made.list.partition for made in driver.lists() if made.list}
    assert partitions == {user: (number & 0x7FFFFFFF) % 4 for user, number in hashes.items()}
