"""A new version under traffic: the command that an operator would type, run beside the traffic, and what came of it."""

import subprocess
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.markup import escape

from stream.commands.broker import Broker
from stream.commands.command_line import REC2PM
from stream.commands.demo.settings import APP
from stream.commands.demo.traffic import Served
from stream.commands.output import printable
from stream.kafka.models_topic import read_models

_WAIT_S: Final = 90.0
_LOOK_S: Final = 0.2
_WHY: Final = "the demo shares its machine: times are not comparable"


class Promotion:
    """Runs `rec2pm models promote` in a thread, and waits until every worker serves the version."""

    def __init__(self, reference: str, broker: Broker, env: Mapping[str, str], workers: int) -> None:
        self._reference, self._broker, self._env, self._workers = reference, broker, dict(env), workers
        self._lines: list[str] = []
        self._served_s: float | None = None
        """Seconds from the record to the last worker's report."""
        self._thread = threading.Thread(target=self._run, name="promotion", daemon=True)

    def begin(self) -> None:
        self._thread.start()

    @property
    def under_way(self) -> bool:
        return self._thread.is_alive()

    def _run(self) -> None:
        command = ["models", "promote", self._reference]
        if not self._typed(command):
            self._typed([*command, "--force", "--why", _WHY])
        began = time.monotonic()
        while time.monotonic() - began < _WAIT_S:
            reports = read_models({"bootstrap.servers": self._broker.bootstrap}, APP).workers.values()
            if sum(each.state == "serving" and each.serves == self._reference for each in reports) >= self._workers:
                self._served_s = time.monotonic() - began
                return
            time.sleep(_LOOK_S)

    def _typed(self, command: list[str]) -> bool:
        """Run a command; its words are kept with what it printed."""
        done = subprocess.run(
            [*REC2PM, *command], env=self._env, capture_output=True, text=True, timeout=_WAIT_S, check=False
        )
        quoted = [f"'{word}'" if " " in word else word for word in command]
        self._lines += [f"$ rec2pm {' '.join(quoted)}", *done.stdout.splitlines(), *done.stderr.splitlines()]
        return done.returncode == 0

    def tell(self, served: Served, console: Console) -> None:
        """What was typed, what it printed, and whose lists the users got."""
        self._thread.join(_WAIT_S)
        console.print("\n[bold]5. A new version under traffic[/]  While the traffic ran, somebody typed this:\n")
        for line in self._lines:
            console.print(f"   {escape(printable(line))}", highlight=False)
        when = (
            "not every worker served it before the end; see their logs"
            if self._served_s is None
            else f"all {self._workers} workers served it {self._served_s:.1f} s later, and none was restarted"
        )
        lists = ", ".join(f"{number:,} by {model}" for model, number in sorted(served.models.items()))
        console.print(f"\n   After the record, {when}. Lists of the traffic: {lists}.")


def promote_first(reference: str, env: Mapping[str, str], folder: Path) -> None:
    """Promote the version that the workers begin with.

    Raises:
        subprocess.CalledProcessError: the command failed; its words are in the log.
    """
    with (folder / "promote.log").open("wb") as log:
        subprocess.run(
            [*REC2PM, "models", "promote", reference],
            env=dict(env),
            stdout=log,
            stderr=log,
            timeout=_WAIT_S,
            check=True,
        )
