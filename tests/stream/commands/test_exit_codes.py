"""The exit codes that docs/operate.md promises, of real processes."""

from collections.abc import Callable
from pathlib import Path

import pytest

from bench import null_model
from model.version.registry import Registry
from tests.processes import environ, rec2pm


def nothing(_: Path) -> None:
    """The registry stays empty."""


def one(folder: Path) -> None:
    null_model.write(Registry(folder), segment_length=10)


def half(folder: Path) -> None:
    (null_model.write(Registry(folder), segment_length=10).folder / "model.pt").unlink()


def damaged(folder: Path) -> None:
    program = null_model.write(Registry(folder), segment_length=10).folder / "model.pt"
    data = bytearray(program.read_bytes())
    data[len(data) // 2] ^= 0xFF
    program.write_bytes(data)


@pytest.mark.parametrize(
    ("make", "model", "code", "said"),
    [
        (nothing, "", 2, "has no model"),
        (half, "", 2, "it has no whole version"),
        (one, "nobody", 2, "has no model 'nobody'"),
        (one, "null@7", 2, "has no version '7'"),
        (one, "null@1@2", 2, "is not NAME, NAME@VERSION"),
        (one, "../null", 2, "is not NAME, NAME@VERSION or NAME@VERSION#SHA256"),
        (one, "null@1#" + "0" * 64, 2, "expected " + "0" * 64),
        (damaged, "", 2, "model.pt has sha256 "),
    ],
)
def test_a_worker_without_its_model(
    tmp_path: Path, bootstrap: str, make: Callable[[Path], None], model: str, code: int, said: str
) -> None:
    make(tmp_path)
    ended = rec2pm("worker", env=environ(bootstrap, "nobody", MODELS=str(tmp_path), MODEL=model))
    (line,) = [line for line in ended.stderr.splitlines() if line.startswith("rec2pm: ")]
    assert said in line
    assert ended.returncode == code
    assert "Traceback" not in ended.stderr
