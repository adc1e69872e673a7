"""A shop's own events through a real worker: its field names, its times, its kinds of event."""

import json
from typing import Any

import msgpack

from tests.integration.test_worker import Application, decoded

NOON = 1_704_110_400_000
SHOP = {
    "ITEM_FIELD": "product.id",
    "TIME_FIELD": "at",
    "USER_FIELD": "customer",
    "EVENT_FIELD": "type",
    "EVENTS": "view,purchase",
    "RECOMMEND": "interaction",
    "OUTPUT_FORMAT": "json",
}


def event(user: str, item: object, at: object, kind: str = "view") -> dict[str, Any]:
    return {"type": kind, "customer": user, "product": {"id": item, "price": float("nan")}, "at": at}


def test_a_worker_reads_the_fields_that_the_settings_name(application: Application) -> None:
    taken = [
        (event("ann", 7, "2024-01-01T12:00:00Z"), NOON),
        (event("ann", "00022", NOON // 1000), NOON),
        (event("ann", 2**64 - 1, NOON * 1000, "purchase"), NOON),
        (event("ann", "7.0", NOON / 1000), NOON),
    ]
    passed_over = [event("ann", 1, NOON, "login"), {"type": "login"}]
    refused = [
        ({**event("ann", 1, NOON), "customer": "bob"}, "`customer` is another user than the record's key"),
        (event("ann", None, NOON), "`product.id` is null, expected text or an integer"),
        (event("ann", 1, "noon"), "`at` is text that is neither a number nor ISO 8601"),
    ]
    everything = [each for each, _ in taken] + passed_over + [each for each, _ in refused]
    application.produce([(b"ann", json.dumps(each).encode()) for each in everything])
    application.produce([(b"ann", msgpack.packb(each)) for each in everything])
    application.produce([(b"ann", json.dumps(event("ann", 5, 5)).encode())])

    worker = application.start_worker(**SHOP)
    application.wait_until(application.sent, worker)
    shown = json.loads(application.rec2pm("user", "show", "ann", "--json", **SHOP).stdout)
    worker.process.terminate()
    assert worker.process.wait(30) == 0, worker.told()

    assert shown["working_items"] == ["7", "00022", str(2**64 - 1), "7.0"] * 2 + ["5"]
    assert shown["working_times"][:-1] == [NOON] * 8
    assert shown["working_times"][-1] > NOON, "the record's own: 5 is not a plausible time"
    said = [line for line in worker.log.read_text().splitlines() if "have a time that is not plausible" in line]
    assert len(said) == 1
    assert "one is 5" in said[0]
    reasons = [
        (dict(message.headers() or [])["__streams.errors.message"] or b"").decode()
        for message in application.read(f"{application.name}.dead-letter")
    ]
    assert sorted(reasons) == sorted([reason for _, reason in refused] * 2)
    lists = [decoded(message) for message in application.read(application.recommendations)]
    assert lists[-1]["taken"] == 9


def test_settings_that_contradict_each_other_end_the_worker_before_it_starts(application: Application) -> None:
    said = application.rec2pm("worker", EVENT_FIELD="type", TIME_FIELD="item.ts")

    assert said.returncode == 2
    assert "REC2PM_EVENT_FIELD needs REC2PM_EVENTS" in said.stderr
    assert "one field cannot be both" in said.stderr
