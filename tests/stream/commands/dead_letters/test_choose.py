"""Which letters a replay sends, and why it passes over the others: no broker is asked."""

from collections.abc import Mapping

from stream.commands.dead_letters.choose import NotSent, Plan, Selection, Survey, choose
from stream.commands.dead_letters.letters import Letter
from stream.commands.dead_letters.notes import Replayed
from stream.wire import LeftOut, Refusal


def letter(
    offset: int,
    *,
    partition: int = 0,
    time_ms: int = 5_000,
    attempts: int = 1,
    message: str = "no",
    topic: str = "in",
    left_out: tuple[LeftOut, ...] = (),
) -> Letter:
    refused = Refusal("MalformedInteraction", message, topic, 0, offset, attempts, None, [], left_out)
    return Letter(partition, offset, time_ms, refused)


def chosen(
    letters: list[Letter],
    selection: Selection = Selection(),  # noqa: B008
    *,
    notes: Mapping[int, Replayed | None] | None = None,
) -> Plan:
    return choose(Survey(letters, notes or {0: Replayed(), 1: Replayed()}, 1_000, "in"), selection)


def offsets(plan: Plan) -> list[int]:
    return [each.offset for each in plan.send]


def test_all_letters_that_were_not_replayed_are_sent() -> None:
    plan = chosen([letter(at) for at in range(5)], notes={0: Replayed(((0, 2), (3, 4)))})
    assert offsets(plan) == [2, 4]
    assert plan.not_sent == {NotSent.REPLAYED: 3}


def test_letters_at_the_cap_are_not_sent() -> None:
    plan = chosen([letter(at, attempts=at) for at in range(1, 6)])
    assert offsets(plan) == [1, 2]
    assert plan.not_sent == {NotSent.REFUSED_OFTEN: 3}
    assert offsets(chosen([letter(at, attempts=at) for at in range(1, 6)], Selection(max_attempts=5))) == [1, 2, 3, 4]


def test_letters_that_nobody_asked_for_are_not_counted() -> None:
    letters = [letter(0), letter(1, message="other"), letter(1, partition=1), letter(2, message="other", attempts=3)]
    plan = chosen(letters, Selection(places=frozenset({(0, 0), (1, 1)})))
    assert [each.place for each in plan.send] == [(0, 0), (1, 1)]
    assert not plan.not_sent
    plan = chosen(letters, Selection(reason="oth"))
    assert offsets(plan) == [1]
    assert plan.not_sent == {NotSent.REFUSED_OFTEN: 1}


def test_the_oldest_are_sent_where_there_is_a_limit_and_each_partition_in_order() -> None:
    letters = [letter(at, partition=at % 2, time_ms=9_000 - at) for at in range(6)]
    plan = chosen(letters, Selection(limit=4))
    assert [each.place for each in plan.send] == [(0, 2), (0, 4), (1, 3), (1, 5)]
    assert plan.not_sent == {NotSent.BEYOND_LIMIT: 2}


def test_what_is_no_dead_letter_is_not_sent_even_when_it_is_named() -> None:
    plan = chosen([Letter(0, 7, 5_000, None)], Selection(places=frozenset({(0, 7)}), again=True))
    assert offsets(plan) == []
    assert plan.not_sent == {NotSent.NOT_OURS: 1}


def test_where_kafka_has_dropped_its_note_letters_that_may_have_been_replayed_are_not_sent() -> None:
    letters = [letter(at, time_ms=time_ms) for at, time_ms in enumerate((1, 999, 1_000, 2_000))]
    plan = chosen(letters, notes={0: None})
    assert offsets(plan) == [2, 3]
    assert plan.not_sent == {NotSent.UNKNOWN: 2}
    assert offsets(chosen(letters, Selection(places=frozenset({(0, 0)}), again=True), notes={0: None})) == [0]


def test_again_sends_what_was_replayed() -> None:
    assert offsets(
        chosen([letter(0), letter(1)], Selection(reason="no", again=True), notes={0: Replayed(((0, 2),))})
    ) == [
        0,
        1,
    ]


def test_a_letter_that_names_another_topic_or_lacks_its_value_is_never_sent_whatever_is_asked_for() -> None:
    lacking = (LeftOut("value", 1_048_399, "ab"),)
    letters = [letter(0), letter(1, topic="app.changelog"), letter(2, topic=""), letter(3, left_out=lacking)]
    for selection in (
        Selection(),
        Selection(again=True, reason="no"),
        Selection(places=frozenset((0, at) for at in range(4)), max_attempts=99, again=True),
    ):
        plan = chosen(letters, selection)
        assert offsets(plan) == [0]
        assert plan.not_sent == {NotSent.ELSEWHERE: 2, NotSent.INCOMPLETE: 1}
