"""deploy/Dockerfile: what Docker is asked for, where no engine is needed to see it."""

import re

from tests.processes import ROOT

DOCKERFILE = (ROOT / "deploy" / "Dockerfile").read_text()


def instructions(name: str) -> list[str]:
    return re.findall(rf"^{name} +(.+)$", DOCKERFILE, re.MULTILINE)


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


def test_the_image_is_slim_and_writes_no_bytecode() -> None:
    """Its root may be read-only."""
    assert re.findall(r"^FROM (\S+) AS python$", DOCKERFILE, re.MULTILINE) == ["python:3.12-slim"]
    assert "PYTHONDONTWRITEBYTECODE=1" in DOCKERFILE
