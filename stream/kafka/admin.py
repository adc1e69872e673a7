"""The client that asks Kafka about topics and creates them."""

from confluent_kafka.admin import AdminClient

from stream.kafka.options import logger_of
from stream.settings import Settings


def admin_client(settings: Settings) -> AdminClient:
    """Keep a reference to the client until its futures are done: freeing the client ends them."""
    return AdminClient({"bootstrap.servers": settings.bootstrap_servers, **settings.kafka}, logger=logger_of("admin"))
