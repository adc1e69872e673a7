"""`rec2pm models verify`: a line for each thing that must be right before a version serves."""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from model.errors import ModelError
from model.version.checked_files import CheckedFiles
from model.version.manifest import MANIFEST, WEIGHTS
from model.version.registry import ModelVersion
from model.version.trial import Trial, tried

TRIAL_S: Final = 120.0


@dataclass(frozen=True, slots=True)
class Line:
    mark: Literal["PASS", "FAIL", "left out"]
    text: str


def verified(version: ModelVersion) -> Iterator[Line]:
    """Look at every file, then try the version in a process of its own."""
    try:
        files = version.files()
    except ModelError as error:
        yield Line("FAIL", str(error))
        return
    asked = " as promoted" if version.sha256 is not None else ""
    yield Line("PASS", f"{MANIFEST} can be read; its sha256 is {files.sha256}{asked}")
    if files.manifest.reference != version.reference:
        yield Line("FAIL", f"{MANIFEST} says that it is {files.manifest.reference}, and it is at {version.uri}")
    with tempfile.TemporaryDirectory(prefix="rec2pm-verify-") as folder:
        whole = True
        for line in _copied(files, Path(folder)):
            whole = whole and line.mark == "PASS"
            yield line
        if not whole:
            yield Line("left out", "weights, contract and golden lists: a file is missing or is another one")
            return
        yield _weights(Path(folder), files)
        yield _trial(Path(folder), files.sha256)


def measured(files: CheckedFiles) -> Trial:
    """Try a version, for its figures.

    Raises:
        ModelError: a file is missing, or is another one.
    """
    with tempfile.TemporaryDirectory(prefix="rec2pm-diff-") as folder:
        for name in (*files.manifest.files, MANIFEST):
            (Path(folder) / name).write_bytes(files.read(name))
        return tried(Path(folder), files.sha256, timeout_s=TRIAL_S)


def _copied(files: CheckedFiles, into: Path) -> Iterator[Line]:
    for name, expected in sorted(files.manifest.files.items()):
        try:
            (into / name).write_bytes(files.read(name))
        except ModelError as error:
            yield Line("FAIL", str(error))
        else:
            yield Line("PASS", f"{name}: {expected.bytes:,} bytes, sha256 {expected.sha256[:12]}… as {MANIFEST} says")
    (into / MANIFEST).write_bytes(files.read(MANIFEST))


def _weights(folder: Path, files: CheckedFiles) -> Line:
    """Whether the weights that a later build can export again are those of the program."""
    from model.version.artifact import load_weights

    try:
        load_weights(folder, files.sha256)
    except ImportError:
        return Line("left out", f"{WEIGHTS}: `pip install safetensors` lets this command read it")
    except ModelError as error:
        return Line("FAIL", str(error))
    return Line("PASS", f"{WEIGHTS} has weights_sha256 {files.manifest.weights_sha256[:12]}… as {MANIFEST} says")


def _trial(folder: Path, sha256: str) -> Line:
    trial = tried(folder, sha256, timeout_s=TRIAL_S)
    if trial.why is not None:
        return Line("FAIL", f"trial: {trial.why}")
    return Line(
        "PASS",
        f"trial: contract and golden lists are right; loaded in {trial.load_s or 0:.1f} s, warm after "
        f"{trial.warm_up_s or 0:.1f} s, one list takes {trial.p50_ms or 0:.1f} ms (95 %: {trial.p95_ms or 0:.1f} ms), "
        f"{(trial.rss_bytes or 0) / 1e6:.0f} MB of memory",
    )
