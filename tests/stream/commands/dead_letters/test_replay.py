"""What `rec2pm dead-letters replay` prints."""

from collections import Counter

from stream.commands.dead_letters.choose import NotSent, Plan
from stream.commands.dead_letters.replay import Outcome, lines
from tests.stream.commands.dead_letters.test_choose import letter

PLAN = Plan([letter(1, message="value 7"), letter(2, message="value 8")], Counter({NotSent.REFUSED_OFTEN: 3}))


def test_a_preview_says_what_would_be_sent_what_not_and_how_to_send_it() -> None:
    assert lines(Outcome("dead", 5, PLAN, sent=None, interactions="in")) == [
        "would replay 2 dead letters to in",
        "  2  value N",
        "not sent:",
        "  3  refused too often (--max-attempts)",
        "nothing was sent: add --execute to send",
    ]


def test_a_replay_says_what_was_sent_and_what_was_deleted_before_it_could_be() -> None:
    assert lines(Outcome("dead", 5, PLAN, sent=1, interactions="in"))[:3] == [
        "replayed 1 dead letter to in",
        "  2  value N",
        "not sent because they were deleted in the meantime: 1",
    ]
    assert not [
        line
        for line in lines(Outcome("dead", 5, PLAN, sent=2, interactions="in"))
        if "deleted" in line or "--execute" in line
    ]


def test_a_replay_says_how_many_letters_the_topic_does_not_take() -> None:
    assert lines(Outcome("dead", 5, PLAN, sent=1, interactions="in", too_large=1))[2:] == [
        "not sent because in does not take records as large: 1; raise its max.message.bytes, then replay them",
        "not sent:",
        "  3  refused too often (--max-attempts)",
    ]


def test_an_empty_topic_and_an_empty_plan_are_said_in_one_line_each() -> None:
    nothing = Plan([], Counter())
    assert lines(Outcome("dead", 0, nothing, sent=None, interactions="in")) == ["no dead letters in dead"]
    assert lines(Outcome("dead", 5, nothing, sent=0, interactions="in")) == ["nothing to replay"]
    assert lines(Outcome("dead", 5, nothing, sent=None, interactions="in")) == ["nothing to replay"]
