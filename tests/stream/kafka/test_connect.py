"""The first connection: the reason that librdkafka gives, the setting to look at, and how long it takes to give up."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing

import pytest

from stream.errors import KafkaUnusable
from stream.kafka import connect
from stream.kafka.connect import Failure, connected

AT = "ssl://kafka:9093/bootstrap"
VERIFY = "SSL handshake failed: error:0A000086:SSL routines::certificate verify failed: broker certificate could not be"


@pytest.mark.parametrize(
    ("reason", "passes", "setting"),
    [
        (f"{VERIFY} verified (after 7ms in state SSL_HANDSHAKE)", False, "REC2PM_KAFKA_SSL_CA_LOCATION"),
        ("Receive failed: error:0A000412:SSL routines::sslv3 alert bad certificate", False, "SSL_CERTIFICATE_LOCATION"),
        ("Receive failed: ssl/tls alert certificate unknown: SSL alert number 46", False, "SSL_CERTIFICATE_LOCATION"),
        ("Receive failed: tlsv13 alert certificate required: SSL alert number 116", False, "SSL_CERTIFICATE_LOCATION"),
        ("Receive failed: tlsv1 alert unknown ca: SSL alert number 48", False, "SSL_CERTIFICATE_LOCATION"),
        ("No matching issuer found in server trusted certificate authorities", False, "SSL_CERTIFICATE_LOCATION"),
        ("SSL handshake failed: Disconnected: connecting to a PLAINTEXT broker listener?", False, "SECURITY_PROTOCOL"),
        ("SASL PLAIN mechanism handshake failed: Unsupported SASL mechanism", False, "REC2PM_KAFKA_SASL_MECHANISM"),
        ("SASL SCRAM-SHA-512 handshake failed: Request not valid in current SASL state", False, "SECURITY_PROTOCOL"),
        ("SASL authentication error: Authentication failed", False, "REC2PM_KAFKA_SASL_PASSWORD"),
        ("Failed to resolve 'kafka:9093': Name or service not known", True, "REC2PM_BOOTSTRAP_SERVERS"),
        ("Connect to ipv4#10.0.0.1:9093 failed: Connection refused", True, "REC2PM_BOOTSTRAP_SERVERS"),
        ("Disconnected: connection closed by peer (after 6ms in state APIVERSION_QUERY)", True, "expect TLS"),
        ("Disconnected: SSL connection closed by peer (after 0ms in state UP)", True, "expect SASL"),
        ("something new", True, "REC2PM_BOOTSTRAP_SERVERS"),
    ],
)
def test_each_reason_names_a_setting(monkeypatch: pytest.MonkeyPatch, reason: str, passes: bool, setting: str) -> None:
    monkeypatch.setattr(connect, "_why_not_verified", lambda *_: "")
    failure = Failure(AT, reason)
    assert failure.passes == passes
    said = failure.explained()
    assert said.startswith("kafka:9093 (")
    assert setting in said
    assert " in state " not in said


def test_an_address_that_kafka_gave_is_not_blamed_on_the_setting() -> None:
    said = Failure("ssl://kafka-0.internal:9092/2", "Failed to resolve 'kafka-0.internal:9092'").explained()
    assert said.startswith("kafka-0.internal:9092 (")
    assert "advertised.listeners" in said
    assert "REC2PM_BOOTSTRAP_SERVERS" not in said.partition("not from")[0]


def test_nobody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connect, "NO_CONNECTION_S", 1.0)
    began = time.monotonic()
    with pytest.raises(KafkaUnusable, match=r"127\.0\.0\.1:1 .*Connection refused.*REC2PM_BOOTSTRAP_SERVERS"):
        connected({"bootstrap.servers": "127.0.0.1:1"})
    assert time.monotonic() - began < 10


@pytest.fixture
def silent() -> Iterator[int]:
    """A port that accepts connections and says nothing."""
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        kept: list[socket.socket] = []

        def accept() -> None:
            while True:
                try:
                    kept.append(server.accept()[0])
                except OSError:
                    return

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        for each in kept:
            each.close()


def test_a_port_that_says_nothing_is_waited_for_and_then_named(silent: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connect, "NO_ANSWER_S", 1.0)
    with pytest.raises(KafkaUnusable, match=f"no connection to Kafka at 127.0.0.1:{silent}"):
        connected({"bootstrap.servers": f"127.0.0.1:{silent}"})


def test_the_limits_leave_room_below_ten_seconds() -> None:
    assert max(connect.NO_CONNECTION_S, connect.REFUSED_S) <= 7
