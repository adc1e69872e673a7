"""The wheel and its environments, made once a session."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.environment import Environment, built_wheel, environment


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="session")
def with_extra(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Environment]:
    """The environment that has the wheel with one extra; "": with none."""
    made: dict[str, Environment] = {}

    def environment_with(extra: str) -> Environment:
        if extra not in made:
            folder = tmp_path_factory.mktemp(f"with-{extra or 'no-extra'}")
            made[extra] = environment(folder, wheel, [extra] if extra else [])
        return made[extra]

    return environment_with


@pytest.fixture
def settings(bootstrap: str, app: str) -> dict[str, str]:
    """What tells this application from others on the same broker; every other setting has its default."""
    return {
        "BOOTSTRAP_SERVERS": bootstrap,
        "APP": app,
        "INTERACTIONS_TOPIC": f"{app}.interactions",
        "RECOMMENDATIONS_TOPIC": f"{app}.recommendations",
    }
