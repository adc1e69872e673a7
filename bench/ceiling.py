"""The upper bound of a worker: consume and decode, and do nothing else.

`python -m bench.ceiling BOOTSTRAP GROUP INPUT OUTPUT`. One record goes to the output at the first batch, to mark the
start. Offsets are committed every 100 ms.
"""

import sys
import time

from confluent_kafka import Consumer, Producer

from stream.event import EventReader
from stream.kafka.options import CONSUMER, MAX_STEP_RECORDS


def main() -> None:
    bootstrap, group, source, output = sys.argv[1:5]
    consumer = Consumer(
        {**CONSUMER, "auto.offset.reset": "earliest", "bootstrap.servers": bootstrap, "group.id": group}
    )
    producer = Producer({"bootstrap.servers": bootstrap})
    consumer.subscribe([source])
    read = EventReader().read
    started = False
    due = time.monotonic()
    while True:
        messages = consumer.consume(MAX_STEP_RECORDS, 0.02)
        for message in messages:
            read(message.value() or b"", message.key() or b"")
        if messages and not started:
            producer.produce(output, b"started")
            producer.flush()
            started = True
        if messages and time.monotonic() >= due:
            consumer.commit(asynchronous=True)
            due = time.monotonic() + 0.1
        elif not messages and started:
            consumer.commit(asynchronous=True)


if __name__ == "__main__":
    main()
