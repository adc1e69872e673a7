"""The error path holds what the input holds: a refused record of any size, key or headers is kept, or what it had is
said.
"""

import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import msgpack
import pytest
from confluent_kafka import Message, Producer
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, NewTopic, ResourceType

from bench import null_model
from model.version.registry import Registry
from stream.commands.dead_letters.letters import headers_of
from stream.errors import MalformedInteraction
from stream.kafka import topics
from stream.wire import LETTER_HEADERS_BYTES, DeadLetter, Header, Refusal, dead_letter, letter_bytes, refusal
from tests.fakes import FakeRecord
from tests.processes import environ, read_committed, rec2pm, wait_until, workers

pytestmark = pytest.mark.isolation

DEFAULT = 1_048_588
"""Kafka's own `max.message.bytes`."""
RANDOM = random.Random(14)


@dataclass(frozen=True)
class Bad:
    """A record that is no interaction."""

    value: bytes | None
    key: bytes | None = b"ann"
    headers: tuple[Header, ...] = ()
    compression: str = "none"


def noise(size: int) -> bytes:
    return b"\xff" + RANDOM.randbytes(size - 1)


def of_size(size: int, make: Callable[[int], Bad]) -> Bad:
    """The record whose batch has exactly so many bytes."""
    room = size
    while True:
        made = make(room)
        over = letter_bytes(DeadLetter(made.key, made.value, list(made.headers))) - size
        if over == 0:
            return made
        room -= max(over, -1) if over > 0 else -1


def around(limit: int) -> list[Bad]:
    """Records in whose value, key or headers nearly all of the bytes are, at the limit of a topic and below it."""
    forms: list[Callable[[int], Bad]] = [
        lambda room: Bad(noise(max(room, 1))),
        lambda room: Bad(b"{", noise(max(room, 1))),
        lambda room: Bad(b"{", b"ann", (("big", noise(max(room, 1))),)),
        lambda room: Bad(None, noise(max(room, 1))),
    ]
    sizes = [limit, limit - 1, limit - 189, limit - 3000]
    made = [of_size(size, form) for size in sizes for form in forms]
    # Very many headers: as many as fit, of the length that wastes the least.
    many = tuple((f"h{number}", b"x") for number in range(limit // 12))
    return [*made, Bad(b"{", b"ann", many)]


@dataclass
class Shop:
    bootstrap: str
    app: str
    folder: Path

    @property
    def input(self) -> str:
        return f"{self.app}.in"

    @property
    def dead(self) -> str:
        return topics.dead_letter_topic(self.app)

    def env(self, **settings: str) -> dict[str, str]:
        folders = {"MODELS": str(self.folder / "models"), "STATE_DIR": str(self.folder / "state")}
        return environ(self.bootstrap, self.app, **folders, MAX_REFUSED="1", **settings)

    def create(self, input_limit: int) -> None:
        null_model.write(Registry(self.folder / "models"), segment_length=10)
        admin = AdminClient({"bootstrap.servers": self.bootstrap})
        config = {"max.message.bytes": str(input_limit)}
        admin.create_topics([NewTopic(self.input, 2, 1, config=config)])[self.input].result(30)
        planned = topics.plan(self.app, self.input, f"{self.app}.out", 2, 1)
        assert {outcome.result for outcome in topics.create(admin, planned)} == {"created", "exists"}

    def limit(self, topic: str, limit: int) -> None:
        admin = AdminClient({"bootstrap.servers": self.bootstrap})
        changed = ConfigEntry("max.message.bytes", str(limit), incremental_operation=AlterConfigOpType.SET)
        resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[changed])
        for future in admin.incremental_alter_configs([resource]).values():
            future.result(30)

    def send(self, records: Sequence[Bad]) -> None:
        failed: list[object] = []
        options = {"bootstrap.servers": self.bootstrap, "message.max.bytes": 100_000_000, "batch.size": 1000}
        producers = {kind: Producer({**options, "compression.type": kind}) for kind in ("none", "lz4")}
        for record in records:
            headers: list[tuple[str, str | bytes | None]] = [*record.headers]
            producers[record.compression].produce(
                self.input,
                record.value,
                record.key,
                0,
                headers=headers,
                on_delivery=lambda error, _: failed.append(error) if error else None,
            )
            assert producers[record.compression].flush(60) == 0
        assert failed == []

    def letters(self) -> list[tuple[Message, Refusal]]:
        found = []
        for message in read_committed(self.bootstrap, self.dead):
            told = refusal(headers_of(message))
            assert told is not None
            found.append((message, told))
        return sorted(found, key=lambda each: each[1].offset)

    def refused(self, records: Sequence[Bad], **settings: str) -> list[Refusal]:
        """What a worker makes of the records; it must still be there afterwards, and remember a good one."""
        self.send(records)
        with workers(1, self.env(**settings), self.folder) as (process,):

            def done() -> bool:
                assert process.running(), process.log.read_text()[-3000:]
                return len(self.letters()) == len(records)

            wait_until(done, 90, f"{len(records)} letters")
            producer = Producer({"bootstrap.servers": self.bootstrap})
            producer.produce(self.input, msgpack.packb({"item": 1, "ts": 1_700_000_000_000}), b"bob", 0)
            assert producer.flush(30) == 0
            wait_until(lambda: self.user("bob") == 1, 60, "the worker goes on")
        letters = self.letters()
        for record, (message, told) in zip(records, letters, strict=True):
            check(record, message, told)
        return [told for _, told in letters]

    def user(self, name: str) -> int:
        said = rec2pm("user", "show", name, "--json", env=self.env(), timeout=60)
        return int(json.loads(said.stdout or "{}").get("taken", 0))

    def command(self, *arguments: str, exit_code: int = 0) -> str:
        said = rec2pm("dead-letters", *arguments, env=self.env(), timeout=60)
        assert (said.returncode, "Traceback" in said.stderr) == (exit_code, False), said.stderr
        return said.stdout + said.stderr


def check(record: Bad, message: Message, told: Refusal) -> None:
    """The letter has each part of the record, or says its size and hash."""
    lacks = {each.part: (each.size, each.sha256) for each in told.left_out}
    parts: Mapping[str, tuple[object, object, bytes]] = {
        "value": (record.value, message.value(), record.value or b""),
        "key": (record.key, message.key(), record.key or b""),
        "headers": (
            list(record.headers),
            told.headers,
            b"".join(name.encode() + (value or b"") for name, value in record.headers),
        ),
    }
    for name, (was, kept, data) in parts.items():
        if name in lacks:
            assert lacks[name] == (len(data), sha256(data).hexdigest())
            assert not kept
        else:
            assert kept == was, name


@pytest.fixture
def shop(bootstrap: str, app: str, tmp_path: Path) -> Shop:
    return Shop(bootstrap, app, tmp_path)


def test_what_the_input_takes_is_dead_lettered_whole_into_topics_made_for_it(shop: Shop) -> None:
    shop.create(DEFAULT)
    records = [*around(DEFAULT), Bad(b"\0" * 20_000_000, compression="lz4"), Bad(noise(1_048_399))]
    assert not any(told.left_out for told in shop.refused(records))


def test_in_a_dead_letter_topic_of_the_inputs_limit_only_what_does_not_fit_lacks_a_part(shop: Shop) -> None:
    shop.create(DEFAULT)
    shop.limit(shop.dead, DEFAULT)
    records = [*around(DEFAULT), Bad(b"\0" * 20_000_000, compression="lz4"), Bad(noise(1_000_000))]
    told = shop.refused(records)
    for record, each in zip(records, told, strict=True):
        size = letter_bytes(DeadLetter(record.key, record.value, list(record.headers)))
        if size > DEFAULT - 250 and record.compression == "none":
            assert each.left_out
        if size < DEFAULT - LETTER_HEADERS_BYTES or record.compression != "none":
            assert not each.left_out


@pytest.mark.parametrize("setting", ["topic", "producer"])
def test_where_the_error_path_is_much_narrower_than_the_input_every_letter_still_arrives(
    shop: Shop, setting: str
) -> None:
    shop.create(DEFAULT)
    settings = {}
    if setting == "topic":
        shop.limit(shop.dead, 20_000)
    else:
        settings["KAFKA_MESSAGE_MAX_BYTES"] = "20000"
    small = [of_size(size, lambda room: Bad(noise(max(room, 1)))) for size in (500, 19_000, 19_990, 20_000, 21_000)]
    told = shop.refused([*around(DEFAULT)[-5:], *small, *[Bad(noise(900)) for _ in range(60)]], **settings)
    assert all(each.left_out for each in told[:5])
    assert [bool(each.left_out) for each in told[5:10]] == [False, False, True, True, True]
    assert not any(each.left_out for each in told[10:])


def test_records_beyond_every_default_arrive_and_are_kept_with_little_memory(shop: Shop) -> None:
    shop.create(12_000_000)
    records = [Bad(noise(11_000_000)), Bad(noise(5_000_000)), Bad(b"\0" * 50_000_000, compression="lz4")]
    told = shop.refused(records, MEMORY_MB="32")
    assert [bool(each.left_out) for each in told] == [False, False, True]


def test_a_letter_without_its_value_says_so_and_is_not_sent_again(shop: Shop) -> None:
    shop.create(DEFAULT)
    shop.limit(shop.dead, 20_000)
    value = noise(1_048_399)
    shop.refused([Bad(value)])
    assert "WARN" in rec2pm("topics", "check", env=shop.env(), timeout=60).stdout
    listed = shop.command("list")
    assert "(letter without the value of 1048399 bytes)" in listed
    assert "1 without a part of the record, which was too large" in listed
    (parsed,) = [json.loads(line) for line in shop.command("list", "--json").splitlines()]
    place = parsed["place"]
    shown = shop.command("show", place)
    assert f"not kept: 1048399 bytes were too large for a dead letter (sha256 {sha256(value).hexdigest()})" in shown
    assert parsed["left_out"] == [{"part": "value", "size": 1_048_399, "sha256": sha256(value).hexdigest()}]
    assert "does not have the value of its record" in shop.command("show", place, "--raw", exit_code=1)
    for arguments in (["replay", "--execute"], ["replay", place, "--execute", "--again", "--max-attempts", "9"]):
        said = shop.command(*arguments)
        assert "nothing to replay" in said
        assert "1  without the value, headers or key of their record, which were too large for a dead letter" in said
    assert len(read_committed(shop.bootstrap, shop.input)) == 2, "no null value was sent, which would forget the user"


def test_letters_at_the_limit_go_back_as_they_were_and_one_that_is_too_large_stops_no_other(shop: Shop) -> None:
    shop.create(DEFAULT)
    records = [Bad(b"{small"), *around(DEFAULT)[:4], Bad(b"{also small")]
    producer = Producer({"bootstrap.servers": shop.bootstrap, "message.max.bytes": 10_000_000, "batch.size": 1000})
    for at, record in enumerate([*records, of_size(DEFAULT + 1, lambda room: Bad(noise(max(room, 1))))]):
        source = FakeRecord(record.key, record.value, 1, at, 1_700_000_000_000 + at, record.headers)
        letter = dead_letter(source, shop.input, MalformedInteraction("no"))
        producer.produce(shop.dead, letter.value, letter.key, 0, headers=letter.headers)  # type: ignore[arg-type]
    assert producer.flush(30) == 0
    said = shop.command("replay", "--execute")
    assert "replayed 6 dead letters to" in said
    assert "does not take records as large: 1" in said
    arrived = read_committed(shop.bootstrap, shop.input)
    assert [(message.key(), message.value()) for message in arrived] == [(each.key, each.value) for each in records]
    assert "does not take records as large: 1" in shop.command("replay", "--execute"), "it is not noted as replayed"


def test_the_size_that_is_computed_is_the_size_that_kafka_limits(shop: Shop) -> None:
    shop.create(DEFAULT)
    for _ in range(12):
        size = RANDOM.randrange(300, 40_000)
        headers = tuple((f"h{number}", RANDOM.choice([None, b"", noise(9)])) for number in range(RANDOM.randrange(9)))
        record = Bad(RANDOM.choice([None, noise(size)]), RANDOM.choice([None, b"", b"k", noise(200)]), headers)
        exact = letter_bytes(DeadLetter(record.key, record.value, list(record.headers)))
        for limit, fits in ((exact, True), (exact - 1, False)):
            shop.limit(shop.input, limit)
            wait_until(lambda fits=fits, record=record: taken(shop, record) == fits, 20, f"{limit}: {fits}")


def taken(shop: Shop, record: Bad) -> bool:
    try:
        shop.send([record])
    except AssertionError:
        return False
    return True
