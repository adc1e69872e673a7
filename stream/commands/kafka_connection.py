"""What a command needs that talks to Kafka: the settings, a client's options, and errors that say what to do."""

import os
from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

if TYPE_CHECKING:
    from stream.kafka.rights import Right
    from stream.settings import Settings

P = ParamSpec("P")
R = TypeVar("R")


def current_settings() -> "Settings":
    """The settings of this process.

    Raises:
        SettingsInvalid: lists what is wrong, options that librdkafka does not accept included.
    """
    from stream.errors import SettingsInvalid
    from stream.kafka.option_check import wrong_options
    from stream.settings import Settings

    settings = Settings.from_environ(os.environ)
    if wrong := wrong_options(settings.kafka, named=settings.worker is not None):
        raise SettingsInvalid("\n".join(wrong))
    return settings


def kafka_options(settings: "Settings", *needed: "Right") -> dict[str, Any]:
    """The options of a client that a command makes, once Kafka has answered.

    Args:
        needed: the rights without which the command cannot do its work.

    Raises:
        KafkaUnusable: no connection, or a right is missing.
    """
    from stream.errors import KafkaUnusable
    from stream.kafka.admin import admin_client
    from stream.kafka.names import reader_group
    from stream.kafka.options import logger_of_command
    from stream.kafka.rights import missing

    if lacking := missing(admin_client(settings), needed):
        raise KafkaUnusable("\n".join(right.line() for right in lacking))
    return {
        "bootstrap.servers": settings.bootstrap_servers,
        "logger": logger_of_command(),
        **settings.kafka,
        "group.id": reader_group(settings.app),
    }


def reports_kafka_errors(command: Callable[P, R]) -> Callable[P, R]:
    """The command, with every error of a Kafka client turned into one of ours."""

    @wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        from stream.kafka.errors import client_errors_explained

        with client_errors_explained():
            return command(*args, **kwargs)

    return run
