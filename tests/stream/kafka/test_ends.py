"""What a look for the ends of partitions does while Kafka does not answer. The link's contract has the rest."""

import time

from stream.kafka.ends import Ends


def test_a_look_that_has_no_answer_is_one_look_and_ends_with_the_process() -> None:
    config = {"bootstrap.servers": "127.0.0.1:1", "group.id": "none", "enable.partition.eof": True}
    ends = Ends(topic="app.in", config=config, clock=time.monotonic)
    ends.look({})
    assert not ends.looking, "no partition to look at"
    ends.look({0: 5})
    ends.look({0: 5, 1: 7})
    assert ends.looking
    assert ends.found() is None
    began = time.monotonic()
    ends.close()
    assert time.monotonic() - began < 3.0
    assert ends.found() == {}, "what Kafka does not answer for lacks"
    assert not ends.looking
