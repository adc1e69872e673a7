"""What a command needs that talks to Kafka: the settings, a client's options, and errors that say what to do."""

import os
from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

if TYPE_CHECKING:
    from stream.settings import Settings

P = ParamSpec("P")
R = TypeVar("R")


def current_settings() -> "Settings":
    from stream.settings import Settings

    return Settings.from_environ(os.environ)


def kafka_options(settings: "Settings") -> dict[str, Any]:
    """The options of a client that a command makes."""
    return {"bootstrap.servers": settings.bootstrap_servers, **settings.kafka}


def reports_kafka_errors(command: Callable[P, R]) -> Callable[P, R]:
    """The command, with every error of a Kafka client turned into one of ours."""

    @wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        from stream.kafka.errors import client_errors_explained

        with client_errors_explained():
            return command(*args, **kwargs)

    return run
