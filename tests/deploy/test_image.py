"""deploy/: what Docker is asked for, where no engine is needed to see it."""

import re
from typing import Any

import pytest
import yaml

from stream.commands import broker_docker
from tests.processes import ROOT

DOCKERFILE = (ROOT / "deploy" / "Dockerfile").read_text()
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())["services"]


def instructions(name: str) -> list[str]:
    return re.findall(rf"^{name} +(.+)$", DOCKERFILE, re.MULTILINE)


def test_tests_and_compose_use_one_kafka_of_a_supported_release() -> None:
    image = SERVICES["kafka"]["image"]
    assert image == broker_docker.IMAGE
    assert re.fullmatch(r"apache/kafka:4\.[2-9]\.\d+", image)


@pytest.mark.parametrize("name", SERVICES)
def test_every_container_of_compose_has_an_init_that_passes_signals_on(name: str) -> None:
    assert SERVICES[name]["init"] is True


def test_the_health_check_starts_no_java() -> None:
    command = SERVICES["kafka"]["healthcheck"]["test"]
    assert command[0] == "CMD", "no shell around it"
    assert not re.search(r"\.sh|java|/opt/kafka", " ".join(command))


def test_a_worker_is_process_1_and_gets_the_signals_itself() -> None:
    assert instructions("ENTRYPOINT") == ['["rec2pm"]']
    assert instructions("CMD") == ['["worker"]']
    assert instructions("STOPSIGNAL") == ["SIGTERM"]


def test_the_image_runs_as_a_numbered_user_that_is_not_root() -> None:
    """A number: Kubernetes' runAsNonRoot cannot tell who a name is."""
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", instructions("USER")[-1])


def test_code_comes_after_the_packages_so_that_a_change_of_it_installs_none() -> None:
    last = DOCKERFILE.split("\nFROM ")[-1]
    installs = [line for line in last.splitlines() if "pip install" in line]
    assert ["torch.txt" in installs[0], "others.txt" in installs[1], "--no-deps" in installs[2]] == [True] * 3
    assert not re.search(r"^COPY (?!--from=requirements)", last, re.MULTILINE), "the checkout is not copied here"


def test_torch_has_one_version_and_pyproject_says_which() -> None:
    assert "2.13" not in DOCKERFILE
