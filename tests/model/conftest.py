from collections.abc import Iterator

import pytest
import torch

from model.version import artifact
from model.version.registry import ModelVersion
from model.version.runtime import Runtime
from model.version.torchscript import Program
from tests.model import tiny


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def version(tmp_path_factory: pytest.TempPathFactory) -> ModelVersion:
    return tiny.add(tmp_path_factory.mktemp("registry"))


@pytest.fixture(scope="session")
def program(version: ModelVersion) -> Program:
    """The scripted network, reloaded from disk."""
    return artifact.load(version.uri).program


@pytest.fixture(scope="session")
def runtime(version: ModelVersion) -> Runtime:
    return Runtime.load(version.folder)
