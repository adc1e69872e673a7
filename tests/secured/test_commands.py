"""The secured matrix leaves no command out."""

from stream.kafka import rights
from tests.secured.commands import ARGUMENTS, ELSEWHERE


def test_every_command_that_needs_rights_is_tried() -> None:
    """A new one is typed in tests/secured/commands.py; `python -m tests.secured` then writes it on the page."""
    assert {*ARGUMENTS, *ELSEWHERE} == {*rights.COMMANDS}
