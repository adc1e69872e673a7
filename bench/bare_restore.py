"""The upper bound of a restore: read a changelog to its end and do nothing else.

`python -m bench.bare_restore BOOTSTRAP TOPIC` prints JSON. The client settings are those of the worker's restore.
"""

import json
import sys
import time
from pathlib import Path

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition

from stream.kafka.options import CHANGELOG_READER


def main() -> None:
    bootstrap, topic = sys.argv[1:3]
    consumer = Consumer({**CHANGELOG_READER, "bootstrap.servers": bootstrap, "group.id": f"{topic}-bare"})
    left = set(consumer.list_topics(topic, timeout=10).topics[topic].partitions)
    at_first = _peak_rss_mb()
    began, spent = time.monotonic(), time.process_time()
    consumer.assign([TopicPartition(topic, partition, OFFSET_BEGINNING) for partition in left])
    records = 0
    while left:
        for message in consumer.consume(2000, 0.05):
            error = message.error()
            if error is None:
                message.key(), message.value()
                records += 1
            elif error.code() == KafkaError._PARTITION_EOF:
                left.discard(message.partition() or 0)
            else:
                raise KafkaException(error)
    seconds = time.monotonic() - began
    consumer.close()
    used = {"cpu_s": time.process_time() - spent, "start_mb": at_first, "rss_mb": _peak_rss_mb()}
    print(json.dumps({"seconds": seconds, "records": records, **used}))


def _peak_rss_mb() -> float:
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith("VmHWM:")) / 1024


if __name__ == "__main__":
    main()
