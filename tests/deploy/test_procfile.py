"""The Procfile under a runner of Procfiles: its processes come up, work together, and end as they should."""

import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient

from model.log import read_log
from stream.kafka import topics
from stream.testing.untrained import untrained
from tests.crash.ports import free_port, free_ports
from tests.docs import known_commands
from tests.e2e.programs import get
from tests.processes import ROOT, environ

pytest.importorskip("honcho", reason="honcho is not installed")
pytest.importorskip("faust", reason="the extra `view` is not installed")

PROCFILE: Final = ROOT / "Procfile"
PROCESSES: Final = dict(re.findall(r"^(\w+): *(.+)$", PROCFILE.read_text(), re.MULTILINE))
WITHIN_S: Final = 120.0
# Five seconds after the first process has ended, honcho kills the others: too soon on a machine that does much else.
RUNNER: Final = "import honcho.manager as m; m.KILL_WAIT = 60; from honcho.command import main; main()"
STEP: Final = 100
"""A runner gives each process a port, 100 apart, in the order of the Procfile."""


def test_every_process_is_a_command_that_gets_the_signals_itself() -> None:
    assert list(PROCESSES) == ["worker", "view", "trainer"]
    for command in PROCESSES.values():
        assert command.startswith("exec "), "a runner signals the shell otherwise"
        assert known_commands.check(command.replace("${PORT:-6066}", "6066")) == 1


def test_all_three_come_up_serve_a_list_and_end_with_their_clean_codes(
    bootstrap: str, app: str, tmp_path: Path
) -> None:
    untrained(tmp_path / "models", ["tea", "mug", "pot"])
    planned = topics.plan(app, f"{app}.in", f"{app}.out", 2, 1)
    assert {each.result for each in topics.create(AdminClient({"bootstrap.servers": bootstrap}), planned)} == {
        "created"
    }
    base, metrics = free_ports(1, random.Random())[0], free_port()
    # Names, folders and ports; what the Procfile leaves to defaults is in the folder in which the runner is started.
    settings = environ(bootstrap, app, MODELS="models", METRICS_LISTEN=f"127.0.0.1:{metrics}")
    settings["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{settings['PATH']}"
    said = tmp_path / "said"
    with said.open("wb") as output:
        runner = subprocess.Popen(
            [sys.executable, "-c", RUNNER, "start", "-f", str(PROCFILE), "-d", str(tmp_path), "-p", str(base)],
            cwd=tmp_path,
            env=settings,
            stdout=output,
            stderr=output,
        )
    try:
        wait_for(runner, said, lambda: answer(metrics, "/readyz") == 200, "the worker is ready")
        wait_for(runner, said, lambda: answer(base + STEP, "/ready") == 200, "the view is ready")
        wait_for(runner, said, lambda: "2 of 2 partitions" in said.read_text(), "the trainer reads")
        producer = Producer({"bootstrap.servers": bootstrap, "partitioner": "murmur2_random"})
        producer.produce(f"{app}.in", b'{"item": "tea", "ts": 1767225600000}', b"ann")
        assert producer.flush(30) == 0
        wait_for(runner, said, lambda: answer(base + STEP, "/recommendations/ann") == 200, "a list is served")
        assert set(get(base + STEP, "/recommendations/ann")[1]["items"]) == {"mug", "pot"}
        runner.send_signal(signal.SIGTERM)
        code = runner.wait(90)
    finally:
        if runner.poll() is None:
            runner.terminate()
            runner.wait(90)

    text = said.read_text()
    assert sorted(re.findall(r"(\w+)\.1 stopped \(rc=(-?\d+)\)", text)) == [(name, "0") for name in sorted(PROCESSES)]
    assert code == 143, "the runner's own: it was told to end"
    assert read_log(tmp_path / "var" / "log").collect().get_column("item_id").to_list() == ["tea"]


def answer(port: int, path: str) -> int:
    return get(port, path)[0]


def wait_for(runner: "subprocess.Popen[bytes]", said: Path, condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + WITHIN_S
    while not condition():
        ended = runner.poll() is not None
        assert not ended, f"the runner ended before {what}\n{said.read_text()[-4000:]}"
        assert time.monotonic() < deadline, f"not within {WITHIN_S:.0f} s: {what}\n{said.read_text()[-4000:]}"
        time.sleep(0.1)
