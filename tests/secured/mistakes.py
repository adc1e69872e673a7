"""Every way to connect to a Kafka wrongly that the secured matrix knows."""

from collections.abc import Mapping
from typing import Final, NamedTuple

from tests.secured.certificates import KEY_PASSWORD
from tests.secured.kafka import SecuredKafka

LISTENERS: Final = ("PLAINTEXT", "TLS", "MTLS", "SCRAM")


class Mistake(NamedTuple):
    """One way to be wrong in front of one listener."""

    listener: str
    what: str
    settings: Mapping[str, str]
    """All of them, without `REC2PM_`."""
    says: str
    """What the one line must say."""
    names: str
    """The setting that the line must name."""


def mistakes(kafka: SecuredKafka) -> list[Mistake]:
    """The mistakes, listener by listener."""
    files = kafka.files
    tls, scram = kafka.right("TLS"), kafka.right("SCRAM")
    stranger = {
        "KAFKA_SSL_CERTIFICATE_LOCATION": str(files.stranger),
        "KAFKA_SSL_KEY_LOCATION": str(files.stranger_key),
    }
    expired = {"KAFKA_SSL_CERTIFICATE_LOCATION": str(files.expired), "KAFKA_SSL_KEY_LOCATION": str(files.expired_key)}
    other_ca = {"KAFKA_SSL_CA_LOCATION": str(files.other_authority)}
    no_ca = {name: value for name, value in tls.items() if "CA_LOCATION" not in name}

    def at(listener: str, like: Mapping[str, str], **changed: str) -> dict[str, str]:
        return {**like, "BOOTSTRAP_SERVERS": kafka.address(listener), **changed}

    plain = kafka.right("PLAINTEXT")
    return [
        _mistake("PLAINTEXT", "nobody listens at the port", {**plain, "BOOTSTRAP_SERVERS": "localhost:1"}, "refused"),
        _mistake("PLAINTEXT", "no such host", {**plain, "BOOTSTRAP_SERVERS": "no-such-host.invalid:9092"}, "resolve"),
        _mistake(
            "PLAINTEXT",
            "Kafka gives an address that does not answer",
            at("ASTRAY", plain),
            "refused",
            "advertised.listeners",
        ),
        _mistake(
            "PLAINTEXT", "the client speaks TLS", at("PLAINTEXT", tls), "PLAINTEXT broker", "KAFKA_SECURITY_PROTOCOL"
        ),
        _mistake(
            "PLAINTEXT",
            "the client speaks SASL",
            at("PLAINTEXT", scram, KAFKA_SECURITY_PROTOCOL="SASL_PLAINTEXT"),
            "SASL state",
            "KAFKA_SECURITY_PROTOCOL",
        ),
        _mistake("TLS", "the client speaks no TLS", at("TLS", plain), "closed by peer", "KAFKA_SECURITY_PROTOCOL"),
        _mistake("TLS", "another authority", {**tls, **other_ca}, "certificate verify failed", "KAFKA_SSL_CA_LOCATION"),
        _mistake("TLS", "no authority given", no_ca, "certificate verify failed", "KAFKA_SSL_CA_LOCATION"),
        _mistake(
            "TLS",
            "the authority's file is missing",
            {**tls, "KAFKA_SSL_CA_LOCATION": "/no/such/ca.pem"},
            "no such file",
            "KAFKA_SSL_CA_LOCATION",
        ),
        _mistake(
            "TLS",
            "a host that the certificate does not name",
            {**tls, "BOOTSTRAP_SERVERS": kafka.address("TLS", "127.0.0.1")},
            "mismatch",
        ),
        _mistake("TLS", "the client speaks SASL too", at("TLS", scram), "SASL state", "KAFKA_SECURITY_PROTOCOL"),
        _mistake(
            "TLS",
            "a misspelt protocol",
            {**tls, "KAFKA_SECURITY_PROTOCOL": "TLS"},
            "Invalid value",
            "KAFKA_SECURITY_PROTOCOL",
        ),
        _mistake("MTLS", "no client certificate", at("MTLS", tls), "alert", "KAFKA_SSL_CERTIFICATE_LOCATION"),
        _mistake(
            "MTLS",
            "a client certificate of another authority",
            at("MTLS", tls, **stranger),
            "No matching issuer",
            "KAFKA_SSL_CERTIFICATE_LOCATION",
        ),
        _mistake(
            "MTLS",
            "an expired client certificate",
            at("MTLS", tls, **expired),
            "alert",
            "KAFKA_SSL_CERTIFICATE_LOCATION",
        ),
        _mistake(
            "MTLS",
            "the key of another certificate",
            {**kafka.right("MTLS"), "KAFKA_SSL_KEY_LOCATION": str(files.stranger_key)},
            "key values mismatch",
            "KAFKA_SSL_KEY_LOCATION",
        ),
        _mistake(
            "MTLS",
            "a locked key and no password",
            {**kafka.right("MTLS"), "KAFKA_SSL_KEY_LOCATION": str(files.locked_key)},
            "ssl.key.location failed",
            "KAFKA_SSL_KEY_PASSWORD",
        ),
        _mistake(
            "MTLS",
            "a locked key and a wrong password",
            {
                **kafka.right("MTLS"),
                "KAFKA_SSL_KEY_LOCATION": str(files.locked_key),
                "KAFKA_SSL_KEY_PASSWORD": f"not {KEY_PASSWORD}",
            },
            "ssl.key.location failed",
            "KAFKA_SSL_KEY_PASSWORD",
        ),
        _mistake(
            "SCRAM",
            "a wrong password",
            {**scram, "KAFKA_SASL_PASSWORD": "wrong"},
            "Authentication failed",
            "KAFKA_SASL_PASSWORD",
        ),
        _mistake(
            "SCRAM",
            "an unknown user",
            {**scram, "KAFKA_SASL_USERNAME": "nobody"},
            "Authentication failed",
            "KAFKA_SASL_USERNAME",
        ),
        _mistake(
            "SCRAM",
            "another mechanism",
            {**scram, "KAFKA_SASL_MECHANISM": "PLAIN"},
            "Unsupported SASL mechanism",
            "KAFKA_SASL_MECHANISM",
        ),
        _mistake(
            "SCRAM",
            "an unknown mechanism",
            {**scram, "KAFKA_SASL_MECHANISM": "SCRAM"},
            "Unsupported SASL mechanism",
            "KAFKA_SASL_MECHANISM",
        ),
        _mistake(
            "SCRAM",
            "no user name",
            {name: value for name, value in scram.items() if "USERNAME" not in name},
            "must be set",
            "KAFKA_SASL_USERNAME",
        ),
        _mistake("SCRAM", "the client speaks no SASL", at("SCRAM", tls), "closed by peer", "KAFKA_SECURITY_PROTOCOL"),
        _mistake(
            "SCRAM",
            "the client speaks no TLS",
            {**scram, "KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT"},
            "closed by peer",
            "KAFKA_SECURITY_PROTOCOL",
        ),
        _mistake("SCRAM", "the client speaks neither", at("SCRAM", plain), "closed by peer", "KAFKA_SECURITY_PROTOCOL"),
        _mistake("SCRAM", "another authority", {**scram, **other_ca}, "verify failed", "KAFKA_SSL_CA_LOCATION"),
    ]


def _mistake(
    listener: str, what: str, settings: Mapping[str, str], says: str, names: str = "BOOTSTRAP_SERVERS"
) -> Mistake:
    return Mistake(listener, what, settings, says, names)
