"""An application with its topics and a model, for tests of what its workers do; and a gate that is quick."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from bench import null_model
from model.version.registry import Registry
from stream.commands.broker import Broker
from tests import quick_gate as quick
from tests.integration.test_worker import PARTITIONS, Application, create_topics


@pytest.fixture
def application(request: pytest.FixtureRequest, broker: Broker, tmp_path: Path) -> Iterator[Application]:
    """Its model does no arithmetic, and folds every 10 interactions. A parameter says how many partitions it has."""
    made = Application(broker.bootstrap, tmp_path, partitions=getattr(request, "param", PARTITIONS))
    create_topics(made)
    null_model.write(Registry(made.models), segment_length=10)
    yield made
    made.close()


@pytest.fixture
def quick_gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One round of trials beside the champion, or more if the candidate looks slow: each starts two processes. What the
    gate sets for its process is set back.
    """
    monkeypatch.setattr("stream.promotion.checks.trial.ROUNDS", quick.ROUNDS)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
