"""A command loads only the libraries that it needs: `--help` answers at once, and training needs no Kafka client."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.model.quick import LOG, SMALL

KAFKA_AND_ROCKSDB = frozenset({"confluent_kafka", "rocksdict"})
HEAVY = KAFKA_AND_ROCKSDB | {"torch", "polars", "numpy", "pydantic", "msgspec", "rich"}
RUNS = """
import sys
from stream.commands.main import main
try:
    main.main(sys.argv[1:])
except SystemExit as ended:
    if ended.code:
        print(f"exit code {ended.code}", file=sys.stderr)
print("\\n".join(["", "loaded:", *sys.modules]))
"""


def _loaded(*arguments: str, folder: Path | None = None, ends: str = "") -> set[str]:
    """The modules that are loaded when the command has run. `ends`: what it says on stderr when it fails."""
    command = [sys.executable, "-P", "-c", RUNS, *arguments]
    ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0, ended.stderr
    assert ("exit code" in ended.stderr) == bool(ends), ended.stderr
    assert ends in ended.stderr
    return set(ended.stdout.partition("\nloaded:\n")[2].splitlines())


@pytest.mark.parametrize(
    "command",
    [
        (),
        ("validate",),
        ("train",),
        ("evaluate",),
        ("topics",),
        ("user", "forget"),
        ("dead-letters",),
        ("state", "import"),
        ("produce",),
    ],
)
def test_help_loads_no_heavy_library(command: tuple[str, ...]) -> None:
    loaded = _loaded(*command, "--help")
    assert "stream.commands.main" in loaded
    assert not loaded & HEAVY


def test_the_help_of_the_worker_loads_neither_kafka_nor_torch() -> None:
    assert not _loaded("worker", "--help") & (KAFKA_AND_ROCKSDB | {"torch", "polars"})


def test_an_audit_loads_no_torch(tmp_path: Path) -> None:
    LOG.write_csv(tmp_path / "log.csv")
    loaded = _loaded("validate", "log.csv", "--json", folder=tmp_path)
    assert "model.audit" in loaded
    assert not loaded & (KAFKA_AND_ROCKSDB | {"torch"})


def test_a_whole_training_and_evaluation_load_neither_kafka_nor_rocksdb(tmp_path: Path) -> None:
    LOG.write_csv(tmp_path / "log.csv")
    settings = [word for setting in (*SMALL, "max_epochs=1") for word in ("--set", setting)]
    trained = _loaded("train", "log.csv", "--out", "models", *settings, folder=tmp_path)
    assert "torch" in trained
    assert not trained & KAFKA_AND_ROCKSDB
    evaluated = _loaded("evaluate", "log.csv", "--model", "rec2pm", "--registry", "models", folder=tmp_path)
    assert "model.evaluation.compare" in evaluated
    assert not evaluated & KAFKA_AND_ROCKSDB


def test_the_topics_commands_load_no_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """They run before there is a model, on machines that may have no need of one."""
    monkeypatch.setenv("REC2PM_BOOTSTRAP_SERVERS", "127.0.0.1:1")
    loaded = _loaded("topics", "create", "--dry-run", ends="no connection to Kafka at 127.0.0.1:1")
    assert "stream.kafka.topics" in loaded
    assert "torch" not in loaded
