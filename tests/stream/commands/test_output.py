"""What others wrote reaches a terminal and the log as text that is only looked at."""

import ast
import io
import json
import logging
import os
import subprocess
import sys
import unicodedata
from pathlib import Path
from typing import Final

import click
import msgspec
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from stream.commands.dead_letters import display
from stream.commands.dead_letters.letters import letter_of
from stream.commands.demo.screen import _shown
from stream.commands.export_state import state_json, state_lines
from stream.commands.main import ReportsErrors
from stream.commands.output import JsonFormatter, PlainFormatter, complain, json_line, printable, say
from stream.errors import KafkaUnusable, MalformedInteraction
from stream.state_rows import KeptSegment, OtherMemory, Row
from stream.wire import dead_letter
from tests.fakes import FakeRecord

ROOT = Path(__file__).parents[3]
COMMANDS = ROOT / "stream" / "commands"
HOSTILE: Final = {
    **{f"C0 {code:02x}": chr(code) for code in range(0x20)},
    "DEL": "\x7f",
    **{f"C1 {code:02x}": chr(code) for code in range(0x80, 0xA0)},
    "colour": "\x1b[31m",
    "title": "\x1b]0;mine\x07",
    "clear": "\x1b[2J\x1b[H",
    "CSI in one character": "\x9b2J",
    **{f"bidi {code:x}": chr(code) for code in (0x61C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))},
    "a line of ours": "\nrec2pm: all is well\n2026-01-01 00:00:00,000 INFO stream.worker all is well",
    "a line by another sign": "\u2028line\u2029paragraph\x85next",
    "overwritten": "\rPASS",
    "invisible": "\u200b\u2060\ufeff\U000e0041",
    "half a pair": "\ud800",
}
ANY_TEXT = st.text(st.characters(exclude_categories=()))
TEXTS = st.one_of(
    ANY_TEXT, st.sampled_from([*HOSTILE.values()]).flatmap(lambda bad: ANY_TEXT.map(lambda text: text + bad))
)


def acts(text: str) -> list[str]:
    """The characters of a printed text that a terminal or a reader may act on; the line end is ours."""
    return [each for each in text if unicodedata.category(each) in ("Cc", "Cf", "Cs", "Zl", "Zp") and each != "\n"]


@pytest.mark.parametrize("hostile", HOSTILE.values(), ids=HOSTILE)
def test_each_is_written_out_on_one_line(hostile: str, capsys: pytest.CaptureFixture[str]) -> None:
    say(f"user ann{hostile}b remembered")
    printed = capsys.readouterr().out
    assert acts(printed) == []
    assert printed.count("\n") == 1
    assert printed.startswith("user ann")
    assert printed.endswith("b remembered\n")


@given(TEXTS)
def test_what_is_printed_shows_nothing_but_itself(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable()
    assert shown == text or not text.isprintable()


@pytest.mark.parametrize("text", ["", "user-1", "Ümläut 日本語 한국어 עברית العربية", "a/b c", "🎬 film"])
def test_other_text_is_left_alone(text: str) -> None:
    assert printable(text) == text


@given(
    st.recursive(
        st.text() | st.integers(-9, 9) | st.none(), lambda each: st.lists(each) | st.dictionaries(st.text(), each)
    )
)
def test_json_says_the_same_without_such_characters(value: object) -> None:
    line = json_line(value)
    assert json.loads(line) == value
    assert msgspec.json.decode(line) == value
    assert line.isprintable()


@given(TEXTS)
def test_a_message_is_one_line_of_the_log_and_a_traceback_cannot_add_others(text: str) -> None:
    lines = io.StringIO()
    handler = logging.StreamHandler(lines)
    handler.setFormatter(PlainFormatter())
    record = logging.makeLogRecord(
        {"name": "stream.worker", "levelname": "WARNING", "msg": "reason=%s", "args": (text,)}
    )
    handler.emit(record)
    assert lines.getvalue().count("\n") == 1
    assert acts(lines.getvalue()) == []
    assert acts(PlainFormatter().formatException((ValueError, ValueError(text), None))) == []


@given(TEXTS)
def test_an_error_is_told_without_acting(text: str) -> None:
    @click.group(cls=ReportsErrors)
    def program() -> None:
        pass

    @program.command()
    def fails() -> None:
        raise KafkaUnusable(text)

    @program.command()
    def refuses() -> None:
        raise click.ClickException(text)

    for name in ("fails", "refuses"):
        ended = CliRunner().invoke(program, [name])
        assert ended.exit_code == 1
        assert acts(ended.stderr) == []
        assert ended.stderr.split("\n")[0].startswith(("rec2pm: ", "Error: "))


def test_several_mistakes_are_several_lines(capsys: pytest.CaptureFixture[str]) -> None:
    complain(KafkaUnusable("one\ntwo"))
    assert capsys.readouterr().err == "rec2pm: one\nrec2pm: two\n"


class Letter(FakeRecord):
    """A dead letter as it is consumed."""

    def error(self) -> None:
        return None


@pytest.mark.parametrize("hostile", [each for each in HOSTILE.values() if each != "\ud800"])
def test_a_dead_letter_acts_nowhere(hostile: str, capsys: pytest.CaptureFixture[str]) -> None:
    refused = dead_letter(
        FakeRecord(hostile.encode(), hostile.encode(), _headers=((f"by{hostile}", hostile.encode()),)),
        f"clicks{hostile}",
        MalformedInteraction(f"found {hostile}"),
    )
    letter = Letter(refused.key, refused.value, _headers=tuple(refused.headers))
    listed = display.listing([letter_of(letter)], {}, 10)  # type: ignore[arg-type]
    for line in (
        *display.listing_lines(listed, f"shop.dead-letter{hostile}"),
        *display.listing_json(listed),
        *display.details(letter, {}),  # type: ignore[arg-type]
        *display.details_json(letter, {}),  # type: ignore[arg-type]
    ):
        say(line)
    printed = capsys.readouterr().out
    assert acts(printed) == []
    assert not [line for line in printed.split("\n") if line.startswith(("rec2pm:", "PASS"))]


@pytest.mark.parametrize("hostile", HOSTILE.values(), ids=HOSTILE)
def test_a_user_acts_nowhere(hostile: str, capsys: pytest.CaptureFixture[str]) -> None:
    row = Row(
        f"ann{hostile}",
        1,
        0,
        [f"film{hostile}"],
        [1],
        [],
        f"kind{hostile}",
        1,
        0,
        kept_segments=[KeptSegment(0, [hostile], [])],
        other_memories=[OtherMemory(f"kind{hostile}", 1, 1, [], 0, prepared=False)],
    )
    lines = state_lines(row)
    if hostile != "\ud800":  # which is no UTF-8, and so is in no store
        lines += state_json(row)
    for line in lines:
        say(line)
    printed = capsys.readouterr().out
    assert acts(printed) == []
    assert printed.count("\n") == len(lines)


def test_the_demo_takes_ids_neither_for_control_nor_for_markup() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, highlight=False, width=80)
    with console.capture() as captured:
        console.print(_shown("[bold]ann[/] \x1b[2J"))
    assert captured.get() == "[bold]ann[/] \\x1b[2J\n"


def test_every_command_prints_through_this_file() -> None:
    """Raw bytes of a letter are the exception: they are asked for, and refused on a terminal."""
    prints = []
    for path in sorted(COMMANDS.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            match node:
                case (
                    ast.Call(func=ast.Attribute(value=ast.Name(id="click"), attr="echo" | "secho"))
                    | ast.Call(func=ast.Name(id="print"))
                ):
                    prints.append(path.relative_to(COMMANDS).as_posix())
    assert prints == ["dead_letters/command.py", "output.py"]


@given(TEXTS, TEXTS)
def test_a_json_log_line_is_one_printable_object_whatever_a_message_and_an_error_have(text: str, why: str) -> None:
    record = logging.LogRecord("stream.worker", logging.WARNING, "", 0, "said %s", (text,), None)
    record.exc_info = (ValueError, ValueError(why), None)
    record.created, record.msecs = 1_767_225_600.5, 500.0
    line = JsonFormatter().format(record)
    assert line.isprintable()
    told = json.loads(line)
    assert list(told) == ["time", "level", "logger", "message", "exception"]
    assert (told["time"], told["level"], told["logger"]) == ("2026-01-01T00:00:00.500Z", "WARNING", "stream.worker")
    assert told["message"] == f"said {printable(text)}"
    assert told["exception"].startswith("ValueError")
    assert all(each.isprintable() for each in told["exception"].split("\n"))


@pytest.mark.parametrize(
    ("settings", "fields"), [({}, None), ({"REC2PM_LOG_FORMAT": "json"}, {"time", "level", "logger", "message"})]
)
def test_why_a_worker_ends_is_in_the_form_of_its_log(settings: dict[str, str], fields: set[str] | None) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "stream", "worker"],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "REC2PM_TOPK": "3", **settings},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    if fields is None:
        assert done.stderr.startswith("rec2pm: REC2PM_TOPK is not a setting")
    else:
        (line,) = done.stderr.splitlines()
        assert json.loads(line).keys() == fields
        assert "REC2PM_TOPK is not a setting" in json.loads(line)["message"]
