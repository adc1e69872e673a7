"""What every command has in common: help that can be read, and one line with the right exit code for an error."""

from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner
from confluent_kafka import KafkaError, KafkaException

from stream.commands.main import main
from stream.commands.output import EXIT_ERROR, EXIT_USAGE


def _all(command: click.Command, words: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield words
    if isinstance(command, click.Group):
        for name, each in command.commands.items():
            yield from _all(each, (*words, name))


@pytest.mark.parametrize("words", list(_all(main)), ids=lambda words: " ".join(words) or "rec2pm")
def test_no_line_of_help_is_cut_off_on_a_terminal_of_80_columns(words: tuple[str, ...]) -> None:
    shown = CliRunner().invoke(main, [*words, "--help"], env={"COLUMNS": "80"}, terminal_width=80)
    assert shown.exit_code == 0
    assert not [line for line in shown.output.splitlines() if line.endswith("...") and "[OPTIONS]" not in line]


@pytest.mark.parametrize(
    ("code", "exit_code", "message"),
    [
        (KafkaError._INVALID_ARG, EXIT_USAGE, "rec2pm: REC2PM_KAFKA_*: "),
        (KafkaError._TRANSPORT, EXIT_ERROR, "rec2pm: Kafka did not answer: "),
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, EXIT_ERROR, "rec2pm: Kafka refused the request: "),
    ],
)
def test_an_error_of_a_kafka_client_is_one_line_that_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, code: int, exit_code: int, message: str
) -> None:
    def refuse(*_: object) -> None:
        raise KafkaException(KafkaError(code))

    monkeypatch.setattr("stream.kafka.admin.admin_client", refuse)
    ended = CliRunner().invoke(main, ["topics", "check"])
    assert ended.exit_code == exit_code
    (line,) = ended.stderr.splitlines()
    assert line.startswith(message)
