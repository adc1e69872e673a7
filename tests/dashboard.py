"""`KAFKA_HOME=… python -m tests.dashboard`: the dashboard and the alerts on a real Prometheus that scrapes two workers.

It starts a broker, two workers and Prometheus (`prometheus` in PATH), and sends traffic for over a minute: with records
that are refused, a worker that is killed and comes back, and a backlog. It checks that every query returns data, prints
a table, and draws what the panels show: docs/images/dashboard.svg. Exit code 1 if a query returns nothing.
"""

import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import yaml

from stream.commands.broker import found_broker
from stream.testing.process import Worker
from tests.crash.ports import free_ports
from tests.docs.pages import ROOT
from tests.processes import wait_until

SECONDS: Final = 60
EVERY_S: Final = 0.25
A_ROUND: Final = 60
"""Interactions that are sent together."""
RATE: Final = "10s"
"""What stands for Grafana's $__rate_interval."""
ONLY_WHILE: Final = {
    "rec2pm_restore_remaining_records": "only while a changelog is read",
    "rec2pm_input_held_back_records": "only while somebody's open transaction holds records back",
    "rec2pm_memory_limit_bytes": "only where the container has a limit",
}
"""Metrics that a healthy worker on any machine need not have."""
_SELECTOR: Final = re.compile(r"\b(?:rec2pm|process)_\w+(?:\{[^}]*\})?|\bup\b")


def panels() -> list[dict[str, Any]]:
    """The panels of the dashboard."""
    found: list[dict[str, Any]] = json.loads((ROOT / "deploy" / "grafana" / "rec2pm.json").read_text())["panels"]
    return found


def queries() -> Iterator[tuple[str, str]]:
    """What asks, and a query: those of the panels as they are, and what the alerts compare."""
    for panel in panels():
        for target in panel["targets"]:
            yield panel["title"], target["expr"]
    (group,) = yaml.safe_load((ROOT / "deploy" / "prometheus" / "alerts.yaml").read_text())["groups"]
    for rule in group["rules"]:
        for selector in dict.fromkeys(_SELECTOR.findall(rule["expr"])):
            yield rule["alert"], selector


class Prometheus:
    """A Prometheus that runs."""

    def __init__(self, folder: Path, targets: list[str]) -> None:
        (port,) = free_ports(1, random.Random())
        config = folder / "prometheus.yaml"
        config.write_text(
            yaml.safe_dump(
                {
                    "global": {"scrape_interval": "1s", "evaluation_interval": "5s"},
                    "rule_files": [str(ROOT / "deploy" / "prometheus" / "alerts.yaml")],
                    "scrape_configs": [{"job_name": "rec2pm", "static_configs": [{"targets": targets}]}],
                }
            )
        )
        self.url = f"http://127.0.0.1:{port}"
        self.process = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={config}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
                "--log.level=warn",
            ]
        )
        wait_until(self._ready, 60, "Prometheus is ready")

    def _ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/-/ready", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def asked(self, path: str, **parameters: object) -> list[dict[str, Any]]:
        with urllib.request.urlopen(f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}") as answer:
            found: list[dict[str, Any]] = json.load(answer)["data"]["result"]
        return found


def traffic(worker: Worker, seconds: float) -> None:
    """Interactions of some users, and now and then a record that is none."""
    from confluent_kafka import Producer

    settings, until = worker.settings, time.monotonic() + seconds
    broken = Producer({"bootstrap.servers": settings.bootstrap_servers, "log_level": 3})
    chosen = random.Random(0)
    while time.monotonic() < until:
        worker.send_all((f"u{chosen.randrange(400)}", chosen.randrange(1, 100), None) for _ in range(A_ROUND))
        if chosen.random() < 0.3:
            broken.produce(settings.interactions_topic, b"no interaction", b"u1")
            broken.flush(10)
        time.sleep(EVERY_S)


def backlog(worker: Worker) -> None:
    """More interactions at once than workers take at once."""
    chosen = random.Random(1)
    for _ in range(8):
        worker.send_all((f"u{chosen.randrange(20_000)}", chosen.randrange(1, 100), None) for _ in range(20_000))


def labelled(pattern: str, labels: dict[str, str]) -> str:
    return re.sub(r"\{\{(\w+)\}\}", lambda found: labels.get(found[1], ""), pattern)


def draw(prometheus: Prometheus, began: float, ended: float, picture: Path) -> None:
    """What the panels show of a time, as a picture."""
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot as plt

    mpl.rcParams.update({"svg.hashsalt": "rec2pm", "svg.fonttype": "none"})
    shown = panels()
    rows = -(-len(shown) // 3)
    figure, grid = plt.subplots(rows, 3, figsize=(15, 2.5 * rows), layout="constrained")
    for axes, panel in zip(grid.flat, shown, strict=False):
        for target in panel["targets"]:
            query = target["expr"].replace("$__rate_interval", RATE)
            for series in prometheus.asked("query_range", query=query, start=began, end=ended, step=2):
                points = [(float(at) - began, float(value)) for at, value in series["values"] if value != "NaN"]
                if points:
                    axes.plot(*zip(*points, strict=True), label=labelled(target["legendFormat"], series["metric"]))
        unit = panel["fieldConfig"]["defaults"]["unit"]
        axes.set_title(f"{panel['title']} ({unit})" if unit != "short" else panel["title"], fontsize=10)
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
        axes.tick_params(labelsize=7)
        axes.legend(fontsize=6, loc="upper left")
    for axes in list(grid.flat)[len(shown) :]:
        axes.set_visible(False)
    figure.savefig(picture, metadata={"Date": None})


def main() -> int:
    if shutil.which("prometheus") is None:
        sys.exit("prometheus is not in PATH: Debian's package `prometheus` has it")
    from stream.testing.untrained import untrained

    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        untrained(folder / "models", list(range(1, 100)), segment_length=10)
        ports = free_ports(2, random.Random())
        with found_broker(os.environ, folder) as broker:

            def started(number: int) -> Worker:
                settings = {"app": "shop", "worker": f"w{number}", "metrics_listen": f"127.0.0.1:{ports[number]}"}
                return Worker.start(broker.bootstrap, folder / "models", folder / f"w{number}", settings)

            workers = [started(0), started(1)]
            prometheus = Prometheus(folder, [f"127.0.0.1:{port}" for port in ports])
            try:
                began = time.time()
                traffic(workers[0], SECONDS / 2)
                workers[1].kill()
                traffic(workers[0], 10)
                workers[1] = started(1)
                traffic(workers[0], SECONDS / 2)
                backlog(workers[0])
                traffic(workers[0], SECONDS / 2)
                ended = time.time()
                return told(prometheus, began, ended)
            finally:
                prometheus.process.terminate()
                prometheus.process.wait(30)
                for worker in workers:
                    worker.stop()


def told(prometheus: Prometheus, began: float, ended: float) -> int:
    """Print what each query returned, and draw the panels. Returns the exit code."""
    empty = 0
    print("| asks | query | series |\n|---|---|---:|")
    for title, query in queries():
        series = len(prometheus.asked("query", query=query.replace("$__rate_interval", RATE), time=ended))
        why = next((why for metric, why in ONLY_WHILE.items() if query.startswith(metric)), None)
        empty += not series and why is None
        print(f"| {title} | `{query}` | {series or why or 'NOTHING'} |")
    draw(prometheus, began, ended, ROOT / "docs" / "images" / "dashboard.svg")
    return int(empty > 0)


if __name__ == "__main__":
    sys.exit(main())
