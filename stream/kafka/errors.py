"""What librdkafka's errors mean: which pass by themselves, and what an operator can do about the others."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final, NoReturn

from confluent_kafka import KafkaError, KafkaException

from stream.errors import Fenced, KafkaUnusable, SettingsInvalid

_AWAY: Final = frozenset(
    {
        KafkaError._TIMED_OUT,
        KafkaError._TRANSPORT,
        KafkaError._ALL_BROKERS_DOWN,
        KafkaError._WAIT_COORD,
        KafkaError._RESOLVE,
        KafkaError._NOENT,  # from list_offsets: no leader is known at the moment
        KafkaError.NOT_COORDINATOR,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.BROKER_NOT_AVAILABLE,
        KafkaError.REPLICA_NOT_AVAILABLE,
        KafkaError.KAFKA_STORAGE_ERROR,
        KafkaError.THROTTLING_QUOTA_EXCEEDED,
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.NETWORK_EXCEPTION,
        KafkaError.REQUEST_TIMED_OUT,
        KafkaError.UNKNOWN_LEADER_EPOCH,
        KafkaError.FENCED_LEADER_EPOCH,
        KafkaError.OFFSET_NOT_AVAILABLE,
        KafkaError.UNSTABLE_OFFSET_COMMIT,
        KafkaError.REBALANCE_IN_PROGRESS,
    }
)
NOT_ALLOWED: Final = frozenset(
    {
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    }
)
"""Waiting does not help against these."""
PUT_OUT: Final = (
    KafkaError._FENCED,
    KafkaError._FATAL,
    KafkaError.INVALID_PRODUCER_EPOCH,
    KafkaError.PRODUCER_FENCED,
)
"""Another process has this worker's name, or the transaction was too old for Kafka."""
LEFT_BEHIND: Final = frozenset(
    {KafkaError.ILLEGAL_GENERATION, KafkaError.UNKNOWN_MEMBER_ID, KafkaError.REBALANCE_IN_PROGRESS}
)
"""The group has gone on without this worker."""
_GRANT: Final = "grant it with kafka-acls.sh --add (docs/operate.md lists what each command needs)"
_WHAT_TO_DO: Final[Mapping[int, str]] = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED: f"no permission on the topic: {_GRANT}",
    KafkaError.GROUP_AUTHORIZATION_FAILED: f"no permission on the consumer group: {_GRANT}",
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED: f"no permission on the transactional id: {_GRANT}",
    KafkaError.CLUSTER_AUTHORIZATION_FAILED: f"no permission on the cluster: {_GRANT}",
    KafkaError.UNKNOWN_TOPIC_OR_PART: "the topic is gone: `rec2pm topics create` creates missing topics",
    KafkaError._UNKNOWN_TOPIC: "the topic is gone: `rec2pm topics create` creates missing topics",
    KafkaError._INCONSISTENT: "Kafka did not take some records: a topic may be gone, `rec2pm topics check` says which",
    KafkaError._UNKNOWN_PARTITION: "the topic has fewer partitions than it had: `rec2pm topics check` says which",
    KafkaError._AUTHENTICATION: "Kafka refused the credentials: see REC2PM_KAFKA_SASL_* and REC2PM_KAFKA_SSL_*",
    KafkaError.SASL_AUTHENTICATION_FAILED: "Kafka refused the credentials: see REC2PM_KAFKA_SASL_*",
}


def comes_back(error: KafkaError) -> bool:
    """True if Kafka only cannot answer now: it is away, or a coordinator moves. `retriable()` denies most of these."""
    return not error.fatal() and (error.retriable() or error.code() in _AWAY)


def explained(error: KafkaError) -> str:
    """The error and, if known, what to do about it."""
    advice = _WHAT_TO_DO.get(error.code())
    return f"{error.str()} ({error.name()})" + (f": {advice}" if advice else "")


def is_fatal(error: KafkaError) -> bool:
    """True if the client is no longer usable.

    After a fatal error other calls raise `_FATAL`, and `fatal()` of that error is False.
    """
    return error.fatal() or error.code() in (KafkaError._FATAL, KafkaError._FENCED)


def stop(error: KafkaException, where: str) -> NoReturn:
    """Raise the error that ends the process: Fenced or KafkaUnusable."""
    reason: KafkaError = error.args[0]
    if reason.code() in PUT_OUT:
        raise Fenced(f"{where}: {reason.str()}. Another process may use this worker's name (REC2PM_WORKER)") from error
    raise KafkaUnusable(f"{where} failed: {explained(reason)}") from error


@contextmanager
def client_errors_explained() -> Iterator[None]:
    """Translate the errors of a Kafka client in the block into errors that say what to do. For commands.

    Raises:
        SettingsInvalid: librdkafka does not accept an option.
        KafkaUnusable: Kafka refused a request, or did not answer.
    """
    try:
        yield
    except KafkaException as error:
        reason: KafkaError = error.args[0]
        if reason.code() == KafkaError._INVALID_ARG:
            raise SettingsInvalid(f"REC2PM_KAFKA_*: {reason.str()}") from error
        if comes_back(reason):
            raise KafkaUnusable(
                f"Kafka did not answer: {explained(reason)}. It had answered at first: look at the brokers and the network"
            ) from error
        raise KafkaUnusable(f"Kafka refused the request: {explained(reason)}") from error
