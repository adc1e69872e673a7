"""What `REC2PM_KAFKA_*` librdkafka does not accept is said at once, all of it, before anything is loaded."""

import random
import string
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import assume, given
from hypothesis import strategies as st

from stream.commands.main import main
from stream.commands.output import EXIT_USAGE
from stream.kafka.option_check import NAMES, variable, wrong_options

TAKES_TEXT = ("client.rack", "sasl.username", "sasl.password", "ssl.key.password")


def wrong(*, named: bool = False, **kafka: str) -> list[str]:
    return wrong_options({name.replace("_", "."): value for name, value in kafka.items()}, named=named)


@pytest.mark.parametrize("option", NAMES.split())
def test_librdkafka_knows_every_name_that_is_proposed(option: str) -> None:
    assert not [line for line in wrong_options({option: "1"}, named=False) if "has no option" in line]


@given(st.sampled_from(NAMES.split()), st.randoms())
def test_a_misspelt_option_is_refused_and_the_right_one_proposed(option: str, chance: random.Random) -> None:
    at = chance.randrange(len(option))
    misspelt = option[:at] + chance.choice(string.ascii_lowercase.replace(option[at], "")) + option[at + 1 :]
    lines = wrong_options({misspelt: "1"}, named=False)
    assume(misspelt not in NAMES.split())
    assume(not lines or "has no option" in lines[0])  # librdkafka has more options than are proposed
    assert len(lines) == 1
    assert lines[0].startswith(f"{variable(misspelt)}: librdkafka has no option {misspelt} (did you mean REC2PM_KAFKA_")


@given(st.dictionaries(st.sampled_from(TAKES_TEXT), st.text("abc ", min_size=1), max_size=4))
def test_options_that_are_right_are_let_through(kafka: dict[str, str]) -> None:
    assert wrong_options(kafka, named=True) == []


def test_every_mistake_has_its_line() -> None:
    lines = wrong(sesion_timeout_ms="1", session_timeout_ms="x", security_protocol="SSSL", linger_ms="20")
    assert sorted(line.split(":")[0] for line in lines) == [
        "REC2PM_KAFKA_SECURITY_PROTOCOL",
        "REC2PM_KAFKA_SESION_TIMEOUT_MS",
        "REC2PM_KAFKA_SESSION_TIMEOUT_MS",
    ]


@pytest.mark.parametrize(
    ("kafka", "named", "said"),
    [
        ({"logger": "x"}, False, "has no option logger"),
        ({"session_timeout_ms": "999999999"}, False, "outside allowed range"),
        ({"max_poll_interval_ms": "20000"}, False, None),
        ({"max_poll_interval_ms": "20000"}, True, "REC2PM_KAFKA_MAX_POLL_INTERVAL_MS"),  # the session is longer
        ({"message_timeout_ms": "999999"}, False, "`transaction.timeout.ms`"),
        ({"message_max_bytes": "40000000"}, False, None),
        ({"ssl_ca_location": "/no/such/file"}, False, "REC2PM_KAFKA_SSL_CA_LOCATION=/no/such/file: no such file"),
        ({"ssl_ca_location": "probe"}, False, None),
        (
            {"security_protocol": "SASL_SSL", "sasl_mechanism": "PLAIN"},
            False,
            "REC2PM_KAFKA_SASL_USERNAME, REC2PM_KAFKA_SASL_PASSWORD: ",
        ),
    ],
)
def test_values_are_checked_alone_and_together(kafka: dict[str, str], named: bool, said: str | None) -> None:
    lines = wrong(named=named, **kafka)
    assert (said is None) == (lines == [])
    assert said is None or said in lines[0]


def test_a_file_that_is_not_a_certificate_names_the_setting(tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    file.write_text("no certificate")
    (line,) = wrong(security_protocol="SSL", ssl_ca_location=str(file))
    assert line.startswith("REC2PM_KAFKA_SSL_CA_LOCATION: ")


@pytest.mark.parametrize("command", [("worker",), ("topics", "check"), ("produce", "log.csv"), ("view",)])
def test_no_command_begins_with_a_misspelt_option(command: tuple[str, ...]) -> None:
    """There is no model, no log and no Kafka here: any of them would be missed first."""
    ended = CliRunner(env={"REC2PM_KAFKA_SESION_TIMEOUT_MS": "6000", "REC2PM_MODELS": "nowhere"}).invoke(main, command)
    assert ended.exit_code == EXIT_USAGE
    (line,) = ended.stderr.splitlines()
    assert line == (
        "rec2pm: REC2PM_KAFKA_SESION_TIMEOUT_MS: librdkafka has no option sesion.timeout.ms "
        "(did you mean REC2PM_KAFKA_SESSION_TIMEOUT_MS?)"
    )
