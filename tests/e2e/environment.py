"""The wheel as it would be handed over, and virtual environments with nothing but it and what an extra of it asks for.

An environment is made without a network: it gets the distributions of this one that the wheel's own metadata requires,
and theirs, and no other. What an extra forgets is therefore missing there, whatever is installed here.
"""

import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from email.parser import HeaderParser
from importlib.metadata import Distribution, distribution, distributions
from pathlib import Path
from typing import Final
from zipfile import ZipFile

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.processes import ROOT

NOT_SOURCES: Final = (".*", "var", "build", "dist", "*.egg-info", "__pycache__")


class NotInstalled(Exception):
    """This environment lacks what the wheel requires, or has another version: install the checkout anew."""


def built_wheel(folder: Path) -> Path:
    """Build the wheel from a copy of the checkout: an old `build` folder can neither hide nor add a file."""
    source = folder / "source"
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(*NOT_SOURCES))
    _run([sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-w", folder, source], cwd=folder)
    (wheel,) = folder.glob("rec2pm-*.whl")
    return wheel


def requirements(wheel: Path) -> list[str]:
    """The lines `Requires-Dist` of the wheel's metadata."""
    with ZipFile(wheel) as archive:
        (name,) = (each for each in archive.namelist() if each.endswith(".dist-info/METADATA"))
        return HeaderParser().parsestr(archive.read(name).decode()).get_all("Requires-Dist", [])


def closure(required: Iterable[str], extras: Iterable[str]) -> dict[str, Distribution]:
    """The distributions that an installation with these extras brings, by name.

    Args:
        required: the lines `Requires-Dist` of rec2pm. Those of the others come from this environment.
        extras: of rec2pm.

    Raises:
        NotInstalled: one of them is not installed here in a version that fits.
    """
    found: dict[str, Distribution] = {}
    seen: set[tuple[str, str]] = set()
    todo = [("rec2pm", extra) for extra in ("", *extras)]
    while todo:
        name, extra = todo.pop()
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        lines = required if name == "rec2pm" else found[name].requires or ()
        for requirement in map(Requirement, lines):
            if requirement.marker is not None and not requirement.marker.evaluate({"extra": extra}):
                continue
            other = canonicalize_name(requirement.name)
            if other != "rec2pm":
                found[other] = _installed(requirement, name)
            todo += [(other, each) for each in ("", *requirement.extras)]
    return found


def _installed(requirement: Requirement, by: str) -> Distribution:
    try:
        here = distribution(requirement.name)
    except ModuleNotFoundError:
        raise NotInstalled(f"{by} requires {requirement}, which is not installed here") from None
    if not requirement.specifier.contains(here.version, prereleases=True):
        raise NotInstalled(f"{by} requires {requirement}, but {here.version} is installed here")
    return here


@dataclass(frozen=True, slots=True)
class Environment:
    """A virtual environment."""

    folder: Path

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    def environ(self) -> dict[str, str]:
        """The variables of a process in it: none of this project's, none by which Python finds other packages."""
        ours = ("REC2PM_", "PYTHON", "VIRTUAL_ENV", "COV_")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        return {**kept, "PATH": f"{self.folder / 'bin'}{os.pathsep}{kept.get('PATH', '')}"}


def environment(folder: Path, wheel: Path, extras: Iterable[str] = ()) -> Environment:
    """An environment with the wheel and exactly these extras."""
    made = Environment(folder)
    venv.create(folder, symlinks=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    owners = _owners()
    for each in closure(requirements(wheel), extras).values():
        _link(each, owners, packages)
    pip = [sys.executable, "-m", "pip", "--python", made.python]
    _run([*pip, "install", "--quiet", "--no-deps", "--no-index", wheel], cwd=folder)
    return made


def _owners() -> Mapping[str, set[str]]:
    """The distributions that have files below each name in site-packages."""
    owners: dict[str, set[str]] = {}
    for each in distributions():
        name = canonicalize_name(each.metadata["Name"])
        for first in {file.parts[0] for file in each.files or ()}:
            owners.setdefault(first, set()).add(name)
    return owners


def _link(installed: Distribution, owners: Mapping[str, set[str]], packages: Path) -> None:
    """A link for each folder that is this distribution's alone, and for each file in one that is shared."""
    here = Path(str(installed.locate_file("")))
    for file in installed.files or ():
        first = file.parts[0]
        if first == "..":  # scripts: commands of ours start none
            continue
        name = Path(first) if len(owners[first]) == 1 else Path(*file.parts)
        link = packages / name
        if not link.is_symlink():
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(here / name)


def _run(command: Iterable[object], cwd: Path) -> None:
    done = subprocess.run([str(each) for each in command], cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{command}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
