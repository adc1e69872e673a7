"""Letters that Kafka refuses as too large: the next attempts send less, and end, whatever the limit is."""

from confluent_kafka import KafkaError
from hypothesis import example, given
from hypothesis import strategies as st

from stream.errors import MalformedInteraction
from stream.kafka.sent_letters import SentLetters
from stream.wire import LETTER_HEADERS_BYTES, DeadLetter, dead_letter, letter_bytes, refusal
from stream.worker import MAX_ABORTS_IN_A_ROW
from tests.fakes import FakeRecord

TOO_LARGE = KafkaError(KafkaError.MSG_SIZE_TOO_LARGE)
AT_A_TIME = 1
"""Kafka names so many refused letters before the transaction has failed."""


def letters(sizes: list[tuple[int, int, int]]) -> list[DeadLetter]:
    return [
        dead_letter(
            FakeRecord(b"k" * key, b"v" * value, 0, offset, 5, (("h", b"x" * header),)),
            "in",
            MalformedInteraction("no"),
        )
        for offset, (key, value, header) in enumerate(sizes)
    ]


size = st.one_of(st.integers(0, 300), st.integers(0, 40_000))


@example([(3, 50_000, 0)] * 30, 20_000, True, set())
@example([(3, 50_000, 0)] * 30, 20_000, False, set())
@given(
    st.lists(st.tuples(size, size, size), min_size=1, max_size=40),
    st.integers(LETTER_HEADERS_BYTES, 60_000),
    st.booleans(),
    st.sets(st.integers(0, 39)),
)
def test_a_step_is_published_within_the_attempts_that_a_worker_makes(
    sizes: list[tuple[int, int, int]], limit: int, shown: bool, compressible: set[int]
) -> None:
    made = letters(sizes)
    sent = SentLetters("dead", limit if shown else None)
    for attempt in range(MAX_ABORTS_IN_A_ROW):
        sent.begin()
        refused = 0
        published = []
        for offset, letter in enumerate(made):
            fitted = sent.fitted(letter)
            delivered = sent.delivery(fitted)
            published.append(fitted)
            takes = letter_bytes(fitted) <= limit or (offset in compressible and fitted == letter)
            if not takes and refused < AT_A_TIME:
                refused += 1
                delivered(TOO_LARGE, None)  # type: ignore[arg-type]
        if not refused:
            sent.settle()
            break
        assert sent.learn() is not None, attempt
    else:
        raise AssertionError("a worker would have ended")
    for letter, was in zip(published, made, strict=True):
        if letter_bytes(was) <= limit and shown:
            assert letter == was, "what fits is not touched"


def test_when_nothing_can_be_left_out_there_is_no_next_attempt() -> None:
    (letter,) = letters([(3, 5, 0)])
    sent = SentLetters("dead", None)
    sent.begin()
    sent.delivery(letter)(TOO_LARGE, None)  # type: ignore[arg-type]
    assert sent.learn() is None
    assert sent.learn() is None, "without a refused letter neither"


def test_a_letter_that_is_published_is_no_reason_to_leave_out_anything_later() -> None:
    (letter,) = letters([(3, 50_000, 0)])
    sent = SentLetters("dead", 20_000)
    sent.begin()
    sent.delivery(letter)(TOO_LARGE, None)  # type: ignore[arg-type]
    assert sent.learn() is not None
    told = refusal(sent.fitted(letter).headers)
    assert told is not None
    assert [each.part for each in told.left_out] == ["value"]
    sent.settle()
    assert sent.fitted(letter) == letter
