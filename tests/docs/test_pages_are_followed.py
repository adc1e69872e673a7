"""Whoever follows the pages gets what they show."""

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from stream.commands.broker import found_broker
from tests.crash.ports import free_port
from tests.docs import pages, session
from tests.docs.pages import Command
from tests.quick_java import quick_java

FIRST = ("docs/quickstart.md", "docs/records.md", "docs/operate.md", "docs/promote.md", "README.md")
FOLLOWED = (*FIRST, *(name for name in pages.names() if name not in FIRST and pages.page(name).is_followed()))
"""In this order, in one folder, on one Kafka: the later pages go on with what the quickstart made."""


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], list[str]]]:
    """What came of a page; those before it are followed first. The broker is one of its own: names are as written."""
    folder, metrics_port = tmp_path_factory.mktemp("followed"), free_port()
    known: dict[str, list[str]] = {}
    with found_broker(own_broker(os.environ), tmp_path_factory.mktemp("kafka"), docker=False) as broker:
        change = session.changed(broker.bootstrap, free_port(), metrics_port)

        def outcome_of(name: str) -> list[str]:
            for each in FOLLOWED[: FOLLOWED.index(name) + 1]:
                if each not in known:
                    known[each] = session.followed(each, folder, session.environ(metrics_port), change, lambda *_: None)
            return known[name]

        yield outcome_of


def own_broker(environ: Mapping[str, str]) -> dict[str, str]:
    return quick_java({name: value for name, value in environ.items() if name != "REC2PM_TEST_BOOTSTRAP"})


@pytest.mark.parametrize("name", FOLLOWED)
def test_every_command_does_what_the_page_shows(name: str, outcome: Callable[[str], list[str]]) -> None:
    wrong = outcome(name)

    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("shown", "printed", "missing"),
    [
        ("a 17 b", "a 5,012.5 b", None),
        ("state rec2pm-o/4x64/bef7bc028731", "state rec2pm-o/4x64/0123456789ab", None),
        ("one\nthree", "one\ntwo\nthree", None),
        ("one  two", "one two", None),
        ("at … by w1", "at 12:01 by w1", None),
        (
            "at 2026-11-29T00:32:41Z (01M8JBFSK0V8G39HE67DG708R2)",
            "at 2027-01-02T03:04:05Z (01M8JDMZGWN74B945Z87VFQ1JX)",
            None,
        ),
        ("three\none", "one\ntwo\nthree", "one"),
        ("created clicks", "exists clicks", "created clicks"),
    ],
)
def test_what_a_page_shows_is_looked_for(shown: str, printed: str, missing: str | None) -> None:
    assert session.first_missing(Command(1, "rec2pm", tuple(shown.splitlines())), printed) == missing


def test_an_exit_code_is_compared_as_it_is() -> None:
    assert session.first_missing(Command(1, "echo $?", ("1",)), "2\n") == "1"


def test_a_shell_keeps_variables_jobs_and_exit_codes(tmp_path: Path) -> None:
    with session.shell(tmp_path, session.environ(9)) as bash:
        bash.run("export A=1; sleep 100 &")

        assert bash.run("echo $A").printed == "1\n"
        assert bash.run("cd /; false").code == 1
        assert bash.run("echo $?; pwd").printed == "1\n/\n"
        assert bash.run("kill %1 && wait; jobs").code == 0
