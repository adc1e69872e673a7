"""An application with its topics and a model, for tests of what its workers do."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import null_model
from model.version.registry import Registry
from stream.commands.broker import Broker
from tests.integration.test_worker import Application, create_topics


@pytest.fixture
def application(broker: Broker, tmp_path: Path) -> Iterator[Application]:
    """Its model does no arithmetic, and folds every 10 interactions."""
    made = Application(broker.bootstrap, tmp_path)
    create_topics(made)
    null_model.write(Registry(made.models), segment_length=10)
    yield made
    made.close()
