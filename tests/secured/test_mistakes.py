"""Each mistake in front of a secured Kafka is one line that names the setting, within ten seconds.

In this process, with less patience; `python -m tests.secured` runs the commands and writes docs/secured.md.
"""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from stream.errors import KafkaUnusable
from stream.kafka import connect
from stream.kafka.connect import connected
from stream.kafka.option_check import wrong_options
from tests.processes import environ, rec2pm
from tests.secured.kafka import SecuredKafka
from tests.secured.mistakes import LISTENERS, Mistake, mistakes

WITHIN_S = 10.0


def said(settings: dict[str, str]) -> str:
    """What a command with these settings says before it does anything."""
    options = {name.removeprefix("KAFKA_").lower().replace("_", "."): value for name, value in settings.items()}
    servers = options.pop("bootstrap.servers")
    if wrong := wrong_options(options, named=True):
        return "\n".join(wrong)
    try:
        connected({"bootstrap.servers": servers, **options})
    except KafkaUnusable as error:
        return str(error)
    return "connected"


def test_who_does_everything_right_is_let_in(secured: SecuredKafka) -> None:
    assert [said(secured.right(listener)) for listener in LISTENERS] == ["connected"] * 4


def test_every_mistake_is_one_line_that_says_the_reason_and_the_setting(
    secured: SecuredKafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connect, "NO_CONNECTION_S", 2.0)
    all_of_them, wrong = mistakes(secured), {}
    with ThreadPoolExecutor(8) as side_by_side:  # each of them waits for seconds
        lines = list(side_by_side.map(lambda mistake: said(dict(mistake.settings)), all_of_them))
    for mistake, line in zip(all_of_them, lines, strict=True):
        if "\n" in line or mistake.says not in line or mistake.names not in line:
            wrong[f"{mistake.listener}: {mistake.what}"] = line
    assert not wrong


@pytest.mark.parametrize(
    ("listener", "what"),
    [
        ("TLS", "another authority"),
        ("SCRAM", "a wrong password"),
        ("TLS", "the client speaks no TLS"),
        ("PLAINTEXT", "Kafka gives an address that does not answer"),
    ],
)
def test_a_command_ends_with_the_line(secured: SecuredKafka, app: str, listener: str, what: str) -> None:
    (mistake,) = (each for each in mistakes(secured) if (each.listener, each.what) == (listener, what))
    began = time.monotonic()
    ended = rec2pm("topics", "check", env=environment(mistake, app), timeout=90)
    seconds = time.monotonic() - began
    (line,) = ended.stderr.splitlines()
    assert line.startswith("rec2pm: no connection to Kafka at localhost:")
    assert mistake.says in line
    assert mistake.names in line
    assert seconds < WITHIN_S, "the machine may be slow: the limits are in stream/kafka/connect.py"


def environment(mistake: Mistake, app: str) -> dict[str, str]:
    settings = dict(mistake.settings)
    return environ(settings.pop("BOOTSTRAP_SERVERS"), app, **settings)
