"""What `rec2pm explain` refuses, and why: on a topic and a changelog that are written by hand."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgpack
import pytest
from confluent_kafka import Producer

from model.version.registry import Registry
from state.codec import POSITION, SEGMENT_LENGTH, Mark, mark_key, mark_value, number_value, working_key, working_value
from stream.commands.broker import Broker
from stream.errors import ListUnexplained
from stream.explain.history import of_topic
from stream.kafka.names import changelog_topic
from stream.settings import Settings
from tests.integration.test_worker import Application, create_topics
from tests.model import tiny

GONE = 3
"""So many interactions of `cut` are remembered, and not in the topic."""
EVENTS = {"EVENT_FIELD": "event", "EVENTS": "click"}
ANN, BOB, CUT = b"ann", b"bob", b"cut"


@dataclass
class Written:
    """An application as workers would have left it. The state goes up to the record before the last."""

    application: Application
    offsets: dict[str, int]

    @property
    def kafka(self) -> dict[str, str]:
        return {"bootstrap.servers": self.application.bootstrap, "group.id": f"{self.application.name}.reader"}

    @property
    def settings(self) -> Settings:
        return Settings.from_environ(self.application.environ(EVENTS))

    def history(self, name: str, partition: int = 0) -> object:
        return of_topic(self.settings, self.kafka, partition, self.offsets[name], lambda *_: None)


def clicked(item: str, event: str = "click") -> bytes:
    return msgpack.packb({"item": item, "ts": 1_700_000_000_000, "event": event})  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def written(broker: Broker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Written]:
    application = Application(broker.bootstrap, tmp_path_factory.mktemp("explained"), partitions=1)
    create_topics(application)
    records: list[tuple[str, bytes, bytes | None]] = [
        ("before the application", ANN, clicked("item-9")),
        ("ann 1", ANN, clicked("item-1")),
        ("malformed", ANN, b"not an interaction"),
        ("another kind", ANN, clicked("item-2", "seen")),
        ("bob 1", BOB, clicked("item-3")),
        ("forgotten", BOB, None),
        ("bob again", BOB, clicked("item-4")),
        ("cut 1", CUT, clicked("item-5")),
        ("ann 2", ANN, clicked("item-6")),
        ("not taken", ANN, clicked("item-7")),
    ]
    application.produce([(user, value) for _, user, value in records])
    offsets = {name: at for at, (name, _, _) in enumerate(records)}
    version = tiny.add(application.models, seed=1)
    mark = Mark("tiny@1", "", version.manifest().memory_format, offsets["ann 1"], 0)
    changes = [
        (SEGMENT_LENGTH, number_value(tiny.L)),
        (POSITION, number_value(offsets["not taken"])),
        (mark_key(0), mark_value(mark)),
        (working_key(ANN, 2), working_value([1, 6], [1, 2])),
        (working_key(BOB, 1), working_value([4], [1])),
        (working_key(CUT, 1 + GONE), working_value([1, 2, 3, 5], [1, 2, 3, 4])),
    ]
    producer = Producer({"bootstrap.servers": broker.bootstrap})
    for key, value in changes:
        producer.produce(changelog_topic(application.name), value, key, partition=0)
    assert producer.flush(30) == 0
    offsets |= {"beyond": len(records) + 50}
    yield Written(application, offsets)
    application.close()


def test_the_history_is_that_of_the_user_up_to_the_interaction(written: Written) -> None:
    history, marks = of_topic(written.settings, written.kafka, 0, written.offsets["ann 1"], lambda *_: None)
    assert (history.user, [history.text(item) for item in history.items]) == (ANN, ["item-1"])
    again, _ = of_topic(written.settings, written.kafka, 0, written.offsets["ann 2"], lambda *_: None)
    assert [again.text(item) for item in again.items] == ["item-1", "item-6"]
    assert again.offsets == [written.offsets["ann 1"], written.offsets["ann 2"]]
    fresh, _ = of_topic(written.settings, written.kafka, 0, written.offsets["bob again"], lambda *_: None)
    assert [fresh.text(item) for item in fresh.items] == ["item-4"], "what came before the null value is forgotten"
    assert [mark.version for mark in marks] == ["tiny@1"]


@pytest.mark.parametrize(
    ("name", "partition", "why"),
    [
        ("ann 1", 7, r"has no partition 7: its partitions are 0 to 0"),
        (
            "beyond",
            0,
            r"has no record: it was deleted \(retention\), is a marker of a transaction, or is not there yet",
        ),
        ("malformed", 0, r"at offset 2 is no interaction: "),
        ("another kind", 0, r"is an event of another kind \(REC2PM_EVENTS\)"),
        ("forgotten", 0, r"forgets its user: no list is made after it"),
        ("bob 1", 0, r"at offset 4 was forgotten later: what was forgotten is not computed again"),
        ("not taken", 0, r"has taken offset 9 of .* yet: its state goes to offset 9"),
        ("before the application", 0, r"began at offset 1 of .*: no worker of it has made a list at offset 0"),
        ("cut 1", 0, r"4 interactions of this user are remembered, and .* has 1 of them: .*retention.*--log"),
    ],
)
def test_what_cannot_be_explained_is_refused_with_the_reason(
    written: Written, name: str, partition: int, why: str
) -> None:
    with pytest.raises(ListUnexplained, match=why):
        written.history(name, partition)


def test_the_command_tells_people_and_programs_the_same(written: Written, tmp_path: Path) -> None:
    application = written.application
    place, settings = f"0@{written.offsets['ann 2']}", {**EVENTS, "TOP_K": 4, "RECOMMEND": "1"}
    said = application.rec2pm("explain", place, **settings)
    assert said.returncode == 0, said.stderr
    told = application.rec2pm("explain", place, "--json", **settings)
    found = json.loads(told.stdout)
    assert found["user"] == "ann"
    assert [each["item"] for each in found["newest"]] == ["item-1", "item-6"]
    assert found["version"] == found["recommendation"]["model"] == "tiny@1"
    for each in found["choices"]:
        assert f"{each['rank']:>4}  {each['item']}" in said.stdout
    assert len(found["choices"]) == 4
    assert "tiny@1: a setting named it" in said.stdout
    exported = application.rec2pm("interactions", "export", "--out", tmp_path / "log", **settings)
    assert exported.returncode == 0, exported.stderr
    from_log = application.rec2pm("explain", place, "--json", "--log", tmp_path / "log", **settings)
    assert from_log.returncode == 0, from_log.stderr
    assert json.loads(from_log.stdout) == found
    wrong = application.rec2pm("explain", "ann@1", **settings)
    assert (wrong.returncode, "expected PARTITION@OFFSET" in wrong.stderr) == (2, True)
    nowhere = application.rec2pm("explain", "0@7777", **settings)
    assert (nowhere.returncode, nowhere.stderr.count("\n")) == (2, 1), nowhere.stderr
    assert Registry(str(application.models)).resolve("tiny@1").reference == "tiny@1"
