"""What is in the wheel, and what its extras bring."""

import re
import subprocess
import tomllib
from collections.abc import Callable
from pathlib import Path
from zipfile import ZipFile

import pytest

from tests.e2e.environment import Environment, NotInstalled, closure
from tests.processes import ROOT

PACKAGES = ("model", "state", "stream")
FOR_DEVELOPERS = {"bench", "demo", "dev", "docs"}
"""Extras that only the Makefile and the pages for developers name."""


def extras() -> set[str]:
    return set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])


def test_the_wheel_has_every_file_of_the_packages_and_nothing_else(wheel: Path) -> None:
    names = ZipFile(wheel).namelist()
    ours = {name for name in names if ".dist-info/" not in name}
    sources = {
        str(path.relative_to(ROOT))
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert ours == sources
    assert "model/training/recipes/rec2pm-o-sasrec.toml" in ours, "package data"
    told = {name.split(".dist-info/")[1] for name in names if ".dist-info/" in name}
    assert told == {"METADATA", "WHEEL", "RECORD", "entry_points.txt", "top_level.txt", "licenses/LICENSE"}


def test_readme_names_the_extras_that_there_are() -> None:
    install = (ROOT / "README.md").read_text().split("## Install\n")[1].split("\n## ")[0]
    found = {extra for pair in re.findall(r"\[([a-z0-9]+)\]|`([a-z0-9]+)`", install) for extra in pair}
    assert extras() - FOR_DEVELOPERS == {"train", "view", "evaluate", "mlflow", "s3", "gcs", "ray", "testing"} <= found


@pytest.mark.parametrize("extra", ["", "train", "evaluate", "view"])
def test_the_program_starts_with_each_extra_alone(
    extra: str, with_extra: Callable[[str], Environment], tmp_path: Path
) -> None:
    done = rec2pm(with_extra(extra), tmp_path, "--version")
    assert (done.returncode, done.stdout.split()[0]) == (0, "rec2pm,"), done.stderr


def test_an_environment_has_what_its_extra_asks_for_and_no_more(with_extra: Callable[[str], Environment]) -> None:
    def brings(extra: str, module: str) -> bool:
        found = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({module!r}) is None)"
        made = with_extra(extra)
        return subprocess.run([made.python, "-c", found], env=made.environ(), check=False).returncode == 0

    assert brings("", "confluent_kafka")
    assert [extra for extra in ("", "train", "evaluate", "view") if brings(extra, "aiokafka")] == ["view"]
    assert [extra for extra in ("", "train", "evaluate", "view") if brings(extra, "lightning_fabric")] == ["train"]
    assert [extra for extra in ("", "train", "evaluate", "view") if brings(extra, "scipy")] == ["evaluate"]
    assert not brings("view", "pytest"), "a package of the tests' own environment"


@pytest.mark.parametrize(
    ("command", "extra"),
    [
        (("train", "clicks.csv", "--out", "models"), "train"),
        (("evaluate", "clicks.csv", "--model", "rec2pm"), "evaluate"),
        (("view",), "view"),
    ],
)
def test_a_command_without_its_extra_says_which_to_install(
    command: tuple[str, ...], extra: str, with_extra: Callable[[str], Environment], tmp_path: Path
) -> None:
    (tmp_path / "clicks.csv").write_text("user_id,item_id,timestamp\nu,i,1767226588210\n")
    done = rec2pm(with_extra(""), tmp_path, *command)
    assert done.returncode in (1, 2)
    assert f"pip install '.[{extra}]'" in done.stderr
    assert "Traceback" not in done.stderr


def rec2pm(made: Environment, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [made.folder / "bin" / "rec2pm", *arguments],
        cwd=folder,
        env=made.environ(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_requirement_that_is_not_installed_here_is_said_with_who_requires_it() -> None:
    with pytest.raises(NotInstalled, match=r"^rec2pm requires nobody-has-this.*, which is not installed here$"):
        closure(['nobody-has-this; extra == "view"'], ["view"])
    with pytest.raises(NotInstalled, match=r"^rec2pm requires click<1, but [\d.]+ is installed here$"):
        closure(["click<1"], [])
