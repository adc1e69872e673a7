"""Which `REC2PM_KAFKA_*` librdkafka accepts, found out before anything is loaded.

librdkafka itself decides: clients with the options are made and thrown away. Without `bootstrap.servers` they connect
to nothing.
"""

import difflib
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from confluent_kafka import Consumer, KafkaException, Producer

from stream.kafka.options import CHANGELOG_READER, CONSUMER, NAMED_SESSION_MS, PRODUCER, MemoryBudget, fitting

PREFIX: Final = "REC2PM_KAFKA_"
NAMES: Final = """
acks api.version.fallback.ms api.version.request api.version.request.timeout.ms batch.num.messages batch.size
broker.address.family broker.address.ttl broker.version.fallback check.crcs client.dns.lookup client.id client.rack
client.software.name compression.codec compression.level compression.type connections.max.idle.ms
coordinator.query.interval.ms debug delivery.timeout.ms enable.idempotence enable.metrics.push
enable.sasl.oauthbearer.unsecure.jwt enable.sparse.connections enable.ssl.certificate.verification
fetch.error.backoff.ms fetch.max.bytes fetch.min.bytes fetch.queue.backoff.ms fetch.wait.max.ms
heartbeat.interval.ms https.ca.location https.ca.pem linger.ms log.connection.close log.thread.name max.in.flight
max.in.flight.requests.per.connection max.poll.interval.ms message.copy.max.bytes message.max.bytes
message.send.max.retries message.timeout.ms metadata.max.age.ms metadata.recovery.rebootstrap.trigger.ms
metadata.recovery.strategy plugin.library.paths queue.buffering.backpressure.threshold queue.buffering.max.kbytes
queue.buffering.max.messages queue.buffering.max.ms queued.max.messages.kbytes queued.min.messages
receive.message.max.bytes reconnect.backoff.jitter.ms reconnect.backoff.max.ms reconnect.backoff.ms
request.required.acks request.timeout.ms retries retry.backoff.max.ms retry.backoff.ms sasl.kerberos.keytab
sasl.kerberos.kinit.cmd sasl.kerberos.min.time.before.relogin sasl.kerberos.principal sasl.kerberos.service.name
sasl.mechanism sasl.mechanisms sasl.oauthbearer.assertion.algorithm sasl.oauthbearer.assertion.claim.exp.seconds
sasl.oauthbearer.assertion.claim.jti.include sasl.oauthbearer.assertion.claim.nbf.seconds sasl.oauthbearer.client.id
sasl.oauthbearer.client.secret sasl.oauthbearer.config sasl.oauthbearer.extensions sasl.oauthbearer.grant.type
sasl.oauthbearer.metadata.authentication.type sasl.oauthbearer.method sasl.oauthbearer.scope
sasl.oauthbearer.token.endpoint.url sasl.password sasl.username security.protocol session.timeout.ms
socket.connection.setup.timeout.ms socket.keepalive.enable socket.nagle.disable socket.receive.buffer.bytes
socket.send.buffer.bytes socket.timeout.ms ssl.ca.certificate.stores ssl.ca.location ssl.ca.pem
ssl.certificate.location ssl.certificate.pem ssl.cipher.suites ssl.crl.location ssl.curves.list
ssl.endpoint.identification.algorithm ssl.engine.id ssl.key.location ssl.key.password ssl.key.pem
ssl.keystore.location ssl.keystore.password ssl.providers ssl.sigalgs.list statistics.interval.ms
sticky.partitioning.linger.ms topic.metadata.propagation.max.ms topic.metadata.refresh.interval.ms
topic.metadata.refresh.sparse transaction.timeout.ms
"""
"""Options that one may want to set. librdkafka decides what exists: these names only help to guess what was meant."""
_UNKNOWN: Final = re.compile('No such configuration property: "(.+)"')
_WRONG: Final = re.compile('onfiguration property "(.+?)"')
_BUDGET: Final = MemoryBudget(256 << 20)


def wrong_options(kafka: Mapping[str, str], *, named: bool) -> list[str]:
    """One line about each option that librdkafka does not accept.

    Args:
        kafka: option (`session.timeout.ms`) → value.
        named: whether the worker has a name, and with it a longer session.
    """
    wrong = [line for option, value in kafka.items() if (line := _unreadable(option, value))]
    left = {option: value for option, value in kafka.items() if not _unreadable(option, value)}
    while (said := _refused(lambda: Producer({**left, "log_level": 0}))) is not None:
        found = _UNKNOWN.search(said) or _WRONG.search(said)
        # The client takes `topic.x` for `x`.
        option = next((each for each in left if found and each in (found[1], f"topic.{found[1]}")), None)
        if option is None:
            return [*wrong, _about(said, left)]
        wrong.append(_unknown(option) if _UNKNOWN.search(said) else _about(said, left))
        del left[option]
    if not wrong:
        # Each value is right. Some options must also fit each other, and those that rec2pm sets.
        session = {"session.timeout.ms": NAMED_SESSION_MS} if named else {}
        consumer = fitting({**CONSUMER, **_BUDGET.consumer(), **session, **left, "group.id": "check"})
        reader = fitting({**CHANGELOG_READER, **_BUDGET.changelog_reader(), **left, "group.id": "check"})
        producer = {**PRODUCER, **left, "transactional.id": "check"}
        for made, options in ((_consumer, consumer), (_consumer, reader), (Producer, producer)):
            if (said := _refused(lambda: made({**options, "log_level": 0}))) is not None:  # noqa: B023
                return [_about(said, left)]
    return wrong


def variable(option: str) -> str:
    """The environment variable of an option."""
    return PREFIX + option.upper().replace(".", "_")


def _consumer(options: Mapping[str, Any]) -> None:
    Consumer(dict(options)).close()


def _refused(make: Callable[[], object]) -> str | None:
    """Why librdkafka does not make a client; None if it does."""
    try:
        make()
    except KafkaException as error:
        return re.sub("^Failed to create (producer|consumer): ", "", str(error.args[0].str())).strip()
    return None


def _unreadable(option: str, value: str) -> str | None:
    """What is wrong with a file that an option names. librdkafka gives OpenSSL's numbers for it."""
    if option == "logger":  # an argument of the Python client, not an option
        return _unknown(option)
    if not option.endswith(".location") or value == "probe":
        return None
    if not Path(value).exists():
        return f"{variable(option)}={value}: no such file"
    return None if os.access(value, os.R_OK) else f"{variable(option)}={value}: this file cannot be read"


def _about(said: str, kafka: Mapping[str, str]) -> str:
    """librdkafka's words about options, with the variables that set them."""
    options = {*kafka, *NAMES.split()}
    named = [option for option in options if re.search(rf"(?<![\w.]){re.escape(option)}(?![\w.])", said)]
    named.sort(key=said.find)
    if "SASL mechanism" in said:
        named.append("sasl.mechanism")
    if "ssl.key.location failed" in said:
        named.append("ssl.certificate.location" if "mismatch" in said else "ssl.key.password")
    return f"{', '.join(map(variable, named)) or PREFIX + '*'}: {said}"


def _unknown(option: str) -> str:
    close = difflib.get_close_matches(option, NAMES.split(), n=1)
    meant = f" (did you mean {variable(close[0])}?)" if close else ""
    return f"{variable(option)}: librdkafka has no option {option}{meant}"
