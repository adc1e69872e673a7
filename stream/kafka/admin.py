"""The client that asks Kafka about topics, groups and rights, and creates topics."""

from confluent_kafka.admin import AdminClient

from stream.kafka.connect import connected
from stream.settings import Settings


def admin_client(settings: Settings) -> AdminClient:
    """A client to which Kafka has answered.

    Keep a reference to the client until its futures are done: freeing the client ends them.

    Raises:
        KafkaUnusable: no connection, with the reason and the setting to look at.
    """
    return connected({"bootstrap.servers": settings.bootstrap_servers, **settings.kafka})
