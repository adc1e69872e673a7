"""What other field names cost: `python -m bench.mapping` prints a table.

The same interactions come in four shapes. `plain` is what the worker expects by default, `shop` is an event with nested
fields, a user and a kind, read through REC2PM_ITEM_FIELD and the other settings. Each comes as MessagePack and as JSON.
The model does no arithmetic, so reading counts as much as it can. Needs a real Kafka, as `make bench` does.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
from confluent_kafka.admin import AdminClient

from bench import journey, null_model
from bench.__main__ import machine, worker
from model.synthetic import SyntheticLog, generate
from model.version.registry import Registry
from stream.commands.broker import found_broker

SEGMENT_LENGTH = 50
SHOP = {
    "ITEM_FIELD": "product.id",
    "TIME_FIELD": "at",
    "USER_FIELD": "customer.id",
    "EVENT_FIELD": "type",
    "EVENTS": "view,purchase",
}


def plain(_: str, item: Any, when: int) -> dict[str, Any]:
    return {"item": item, "ts": when}


def shop(user: str, item: Any, when: int) -> dict[str, Any]:
    return {"type": "view", "customer": {"id": user}, "product": {"id": item}, "at": when}


def encoded(shape: Callable[..., dict[str, Any]], encode: Callable[[Any], bytes]) -> Callable[[str, Any, int], bytes]:
    return lambda user, item, when: encode(shape(user, item, when))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=400_000)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    log = generate(SyntheticLog(users=6000, items=900, interactions_median=100, seed=1)).interactions
    with tempfile.TemporaryDirectory() as temporary, found_broker(os.environ, Path(temporary)) as broker:
        folder = Path(temporary)
        models = folder / "models"
        null_model.write(Registry(models), segment_length=SEGMENT_LENGTH)
        load = journey.interleaved(log, asked.records, SEGMENT_LENGTH)
        admin = AdminClient({"bootstrap.servers": broker.bootstrap, "log_level": 3})
        formats = {"MessagePack": msgspec.msgpack.encode, "JSON": msgspec.json.encode}
        runs = {name: list[journey.Run]() for name in formats}
        for turn in range(asked.rounds):
            shapes = [("plain", plain, {}), ("shop", shop, SHOP)]
            for name, encode in formats.items():
                for label, shape, settings in shapes if turn % 2 == 0 else shapes[::-1]:
                    given = replace(load, name=f"{load.name}-{label}-{name}", value=encoded(shape, encode))
                    program = worker(label, models, "null", SEGMENT_LENGTH, **settings)
                    topic = journey.load(broker.bootstrap, admin, given)
                    run = journey.measure(broker.bootstrap, folder, program, topic, given.records, turn)
                    print(f"  round {turn}: {name} {label} {run.rate:,.0f}/s", file=sys.stderr)
                    runs[name].append(run)
    print(machine())
    for name, each in runs.items():
        print(f"\n{name}:\n")
        print("\n".join(journey.table(each, "plain")))


if __name__ == "__main__":
    main()
