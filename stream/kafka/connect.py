"""The first connection of a process to Kafka: an admin client that Kafka has answered, or the reason why it did not.

librdkafka tries again for ever, and a call on a client without a connection says only that it timed out. The reason is
in the client's log. So the first connection reads that log, and gives up as soon as waiting cannot help.
"""

import logging
import re
import socket
import ssl
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from stream.errors import KafkaUnusable
from stream.kafka.errors import comes_back
from stream.kafka.options import logger_of

NO_ANSWER_S: Final = 15.0
"""How long Kafka may be silent without any reason in the log: it may be busy."""
NO_CONNECTION_S: Final = 5.0
"""How long to try after a reason that may pass: a broker that is starting refuses connections."""
REFUSED_S: Final = 1.0
"""How long to try after a reason that does not pass, once no bootstrap server is left that may answer."""
_FIRST_CALL_S: Final = 0.25
_LONGEST_CALL_S: Final = 4.0
"""A call does not look at the log, so it is short. Each waits longer than the one before, for a Kafka that is slow."""
_PROBE_S: Final = 2.0


class _Advice(NamedTuple):
    """What to look at when librdkafka's reason matches a pattern."""

    pattern: str
    passes: bool
    """True if the same client may get through a moment later."""
    look_at: str


_PROTOCOL: Final = "REC2PM_KAFKA_SECURITY_PROTOCOL"
_ADVICE: Final = (
    _Advice(
        "certificate verify failed",
        False,
        "REC2PM_KAFKA_SSL_CA_LOCATION must name the file of the authority that signed Kafka's certificate, and the host "
        "in REC2PM_BOOTSTRAP_SERVERS must be a name in that certificate",
    ),
    _Advice(
        r"No matching issuer|alert (bad |unknown )?(certificate|ca)\b",
        False,
        "Kafka wants a client certificate that it trusts: see REC2PM_KAFKA_SSL_CERTIFICATE_LOCATION and "
        "REC2PM_KAFKA_SSL_KEY_LOCATION",
    ),
    _Advice(
        "PLAINTEXT broker listener|wrong version number",
        False,
        f"this port does not speak TLS: see {_PROTOCOL} and the port in REC2PM_BOOTSTRAP_SERVERS",
    ),
    _Advice("Unsupported SASL mechanism", False, "see REC2PM_KAFKA_SASL_MECHANISM"),
    _Advice(
        "not valid in current SASL state",
        False,
        f"this port does not use SASL: see {_PROTOCOL} (SSL or PLAINTEXT) and the port in REC2PM_BOOTSTRAP_SERVERS",
    ),
    _Advice(
        "SASL|[Aa]uthentication",
        False,
        "Kafka refused the credentials: see REC2PM_KAFKA_SASL_USERNAME, REC2PM_KAFKA_SASL_PASSWORD and "
        "REC2PM_KAFKA_SASL_MECHANISM",
    ),
    _Advice("Failed to resolve", True, "no such host: see REC2PM_BOOTSTRAP_SERVERS"),
    _Advice(
        "[Cc]onnection refused|timed out|[Uu]nreachable|No route",
        True,
        "Kafka does not run there, or cannot be reached: see REC2PM_BOOTSTRAP_SERVERS",
    ),
    _Advice(
        r"closed by peer.*in state APIVERSION_QUERY|incorrect security\.protocol",
        True,
        f"this port seems to expect TLS: see {_PROTOCOL} (SSL or SASL_SSL)",
    ),
    _Advice(
        r"closed by peer.*in state (UP|AUTH)",
        True,
        f"this port seems to expect SASL: see {_PROTOCOL} (SASL_SSL or SASL_PLAINTEXT)",
    ),
    _Advice("closed by peer|Disconnected|Broken pipe", True, f"see {_PROTOCOL} and REC2PM_BOOTSTRAP_SERVERS"),
)
"""The first pattern that matches decides. Of several reasons, the one whose pattern comes first is reported."""
_ANYTHING: Final = "see REC2PM_BOOTSTRAP_SERVERS, and REC2PM_KAFKA_SECURITY_PROTOCOL"
_HOST_NOT_NAMED: Final = "REC2PM_BOOTSTRAP_SERVERS must use a host that is named in Kafka's certificate"
_ELSEWHERE: Final = (
    "this address comes from Kafka (advertised.listeners), not from REC2PM_BOOTSTRAP_SERVERS: it must be one that this "
    "machine can reach"
)
_FAIL: Final = re.compile(r"^FAIL .*?\]: (?P<broker>\S+): (?P<reason>.*)$", re.DOTALL)
_NO_CERTIFICATE: Final = re.compile(r"^SSL .*\[thrd:(?P<broker>.*?)\]: (?P<reason>No matching issuer.*)$", re.DOTALL)
_NOISE: Final = re.compile(
    r" \(after \d+ms in state [A-Z_]+(?:, \d+ identical error\(s\) suppressed)?\)$"
    r"|: broker's supported mechanisms: (?= \(after|$)"
)


class Failure(NamedTuple):
    """Why a connection to one broker failed."""

    broker: str
    """As librdkafka names it: `ssl://host:port/bootstrap`, without `/bootstrap` for an address that Kafka gave."""
    reason: str
    """librdkafka's words."""

    @property
    def rank(self) -> int:
        """The place of its advice in `_ADVICE`; after all of them if there is none."""
        return next((at for at, each in enumerate(_ADVICE) if re.search(each.pattern, self.reason)), len(_ADVICE))

    @property
    def passes(self) -> bool:
        return self.rank == len(_ADVICE) or _ADVICE[self.rank].passes

    def explained(self, ca: str | None = None) -> str:
        """The reason, and which setting to look at. `ca`: file or folder of trusted authorities, if one is set."""
        rank = self.rank
        reason = _NOISE.sub("", _NOISE.sub("", self.reason))
        look_at = _ADVICE[rank].look_at if rank < len(_ADVICE) else _ANYTHING
        if "certificate verify failed" in reason and (words := _why_not_verified(self.broker, ca)):
            reason = f"SSL handshake failed: certificate verify failed: {words.rstrip('.')}"
            look_at = _HOST_NOT_NAMED if "mismatch" in words else look_at
        if self.passes and not self.broker.endswith("/bootstrap"):
            look_at = _ELSEWHERE
        return f"{self.address} ({reason}): {look_at}"

    @property
    def address(self) -> str:
        """Host and port, without the protocol and the number of the broker."""
        return re.sub(r"/(bootstrap|\d+)$", "", self.broker).rpartition("://")[2]


class Failures(logging.Handler):
    """Collects failed connections from a client's log. Other lines go to the log of the process."""

    def __init__(self, client: str) -> None:
        super().__init__()
        self.found: list[Failure] = []
        self._others = logger_of(client)

    def emit(self, record: logging.LogRecord) -> None:
        line = record.getMessage()
        if (failed := _FAIL.match(line) or _NO_CERTIFICATE.match(line)) is not None:
            self.found.append(Failure(failed["broker"], failed["reason"]))
        elif self._others.isEnabledFor(record.levelno) and record.levelno >= logging.WARNING:
            self._others.handle(record)

    def worst(self, *, of_bootstrap: bool) -> Failure | None:
        """The failure that says most; None if nothing failed.

        Args:
            of_bootstrap: look at the addresses that the settings give, or at those that Kafka gave.
        """
        among = [each for each in self.found if each.broker.endswith("/bootstrap") == of_bootstrap]
        return min(among, key=lambda failure: failure.rank, default=None)

    def everywhere(self, servers: str) -> bool:
        """True if a connection failed to as many addresses as the settings give, so that none is left to answer."""
        return len({failure.address for failure in self.found}) >= len(servers.split(","))


def connected(options: Mapping[str, Any]) -> AdminClient:
    """An admin client to which Kafka has answered, at an address that Kafka itself gave.

    Keep a reference to the client until its futures are done: freeing the client ends them.

    Raises:
        KafkaUnusable: no connection, with librdkafka's reason and the setting to look at.
        KafkaException: librdkafka does not accept an option, or Kafka refuses the question.
    """
    failures = Failures("admin")
    log = logging.Logger("rdkafka.connect")  # not a registered logger: each client has its own
    log.addHandler(failures)
    # librdkafka logs a connection that was closed on it at level 6.
    admin = AdminClient({**options, "log_level": 6}, logger=log)
    servers, ca = options["bootstrap.servers"], options.get("ssl.ca.location")
    _ask(lambda within_s: admin.list_topics(timeout=within_s), admin, failures, servers, ca, of_bootstrap=True)

    def ask_elsewhere(within_s: float) -> object:
        return admin.describe_cluster(request_timeout=within_s).result(2 * within_s)

    # A bootstrap server has answered. The next question goes to an address from its answer.
    _ask(ask_elsewhere, admin, failures, servers, ca, of_bootstrap=False)
    return admin


def _ask(
    call: Callable[[float], object],
    admin: AdminClient,
    failures: Failures,
    servers: str,
    ca: str | None,
    *,
    of_bootstrap: bool,
) -> None:
    """Repeat a question until Kafka answers it.

    Args:
        call: asks, and waits at most so many seconds.

    Raises:
        KafkaUnusable: Kafka does not answer.
    """
    began = time.monotonic()
    within_s = _FIRST_CALL_S
    refused_at: float | None = None
    while True:
        try:
            call(within_s)
        except (KafkaException, TimeoutError) as error:
            if isinstance(error, KafkaException) and not comes_back(error.args[0]):
                return  # an answer all the same
            reason = str(error.args[0].str()) if isinstance(error, KafkaException) else "no answer"
        else:
            return
        admin.poll(0)
        now = time.monotonic()
        worst = failures.worst(of_bootstrap=of_bootstrap)
        if of_bootstrap and worst is None and failures.worst(of_bootstrap=False) is not None:
            return  # a bootstrap server has answered: it gave the address that fails
        within_s = min(2 * within_s, _LONGEST_CALL_S if worst is None else _LONGEST_CALL_S / 2)
        if refused_at is None and worst is not None and not worst.passes and failures.everywhere(servers):
            refused_at = now
        limit = NO_ANSWER_S if worst is None else NO_CONNECTION_S
        if now - began > limit or (refused_at is not None and now - refused_at > REFUSED_S):
            why = (
                f"{servers} ({reason}): see REC2PM_BOOTSTRAP_SERVERS and the brokers"
                if worst is None
                else worst.explained(ca)
            )
            raise KafkaUnusable(f"no connection to Kafka at {why}")


def _why_not_verified(broker: str, ca: str | None) -> str:
    """Why a broker's certificate is not trusted: OpenSSL's words, which librdkafka replaces by a guess.

    Only the handshake is made, and nothing is sent. Empty if this cannot be found out.
    """
    host, _, port = Failure(broker, "").address.rpartition(":")
    host = host.strip("[]")
    try:
        context = ssl.create_default_context()
        if ca is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            try:
                context.load_verify_locations(cafile=ca)
            except OSError:
                context.load_verify_locations(capath=ca)
        with (
            socket.create_connection((host, int(port)), timeout=_PROBE_S) as raw,
            context.wrap_socket(raw, server_hostname=host),
        ):
            return ""
    except ssl.SSLCertVerificationError as error:
        return error.verify_message
    except (OSError, ValueError):
        return ""
