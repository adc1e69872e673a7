"""What `rec2pm dead-letters list` prints, and bytes made readable."""

import json

import msgpack
import pytest

from stream.commands.dead_letters.display import listing, listing_json, listing_lines, readable
from stream.commands.dead_letters.letters import Letter
from stream.commands.dead_letters.notes import Replayed
from tests.stream.commands.dead_letters.test_choose import letter

LETTERS = [
    *(letter(at, time_ms=1_000 * at, message=f"value number {at}") for at in range(4)),
    letter(0, partition=1, time_ms=500, message="no item"),
    Letter(1, 1, 9_000, None),
]
NOTES = {0: Replayed(((0, 2),)), 1: None}


def test_the_newest_letters_are_listed_and_all_are_counted_by_reason() -> None:
    head, *rows = listing_lines(listing(LETTERS, NOTES, 3), "dead")
    assert [row.split()[0] for row in rows[:3]] == ["0:2", "0:3", "1:1"]
    assert rows[0].index("value number 2") == head.index("REASON"), "the columns are aligned"
    assert rows[3:] == [
        "",
        "6 dead letters in dead, 2 replayed; the newest 3 are shown:",
        "  4  value number N",
        "  1  no item",
        "  1  not a dead letter of rec2pm: its headers are missing",
    ]
    assert "6 dead letters in dead, 2 replayed:" in listing_lines(listing(LETTERS, NOTES, 6), "dead")


def test_json_has_a_line_for_each_letter_that_is_listed() -> None:
    shown = [json.loads(line) for line in listing_json(listing(LETTERS, NOTES, 50))]
    assert [each["place"] for each in shown] == ["0:0", "1:0", "0:1", "0:2", "0:3", "1:1"]
    assert [each["replayed"] for each in shown] == [True, False, True, False, False, False]
    assert shown[-1]["reason"] is None


def test_no_letters_are_one_line_for_people_and_none_for_programs() -> None:
    assert listing_lines(listing([], {}, 3), "dead") == ["no dead letters in dead"]
    assert listing_json(listing([], {}, 3)) == []


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        (None, "null"),
        (b"", "empty"),
        (b"a", "text (1 byte): a"),
        (b"\x1b[2J", "bytes (4 bytes): 1b 5b 32 4a"),
        (msgpack.packb({"item": 7}), "MessagePack (7 bytes): {'item': 7}"),
        (b"\xff\xfe", "bytes (2 bytes): ff fe"),
    ],
)
def test_bytes_are_shown_without_a_character_that_a_terminal_would_act_on(data: bytes | None, shown: str) -> None:
    assert readable(data) == shown
