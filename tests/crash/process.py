"""Workers as operating-system processes, and the supervisor that starts again what failed, as systemd would."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.crash import plan
from tests.crash.plan import Event, Order
from tests.processes import ROOT, wait_until

_LOOK_EVERY_S = 0.05
_RESTART_AFTER_S = 0.1
"""systemd's default."""
_A_MOMENT_S = 1.0
EXIT_USAGE = 2


@dataclass(frozen=True, slots=True)
class Exit:
    """How a process ended: its exit code, or minus the signal's number; and the last line of its log."""

    time: float
    name: str
    code: int
    asked: bool
    """True if the driver asked it to end."""
    last_line: str

    @property
    def failure(self) -> bool:
        """It ended by itself and not well: no signal from the driver or from a plan, no request."""
        return not self.asked and self.code not in (0, -signal.SIGKILL)


class Worker:
    """One worker name: its folder with log, plan, events and state, and the process that runs under it, if any."""

    def __init__(
        self,
        name: str,
        env: Mapping[str, str],
        folder: Path,
        *,
        state: Path | None = None,
        files: Path | None = None,
        prefix: Sequence[str] = (),
        named: bool = True,
    ) -> None:
        """Args:
        name: the worker name; REC2PM_WORKER if `named`.
        folder: gets the log, and a folder for this worker.
        state: REC2PM_STATE_DIR; None puts it into the worker's folder.
        files: the path of `state` as the driver sees it, if that differs.
        prefix: a command that runs the worker's command, for example in another mount namespace.
        named: whether REC2PM_WORKER is set, which makes it a static member of the group.
        """
        self.name = name
        self.folder = folder / name
        self.folder.mkdir(parents=True, exist_ok=True)
        self.log = folder / f"{name}.log"
        self.state = state or self.folder / "state"
        self.files = files or self.state
        self.exits: list[Exit] = []
        self.starts = 0
        self.started_at = 0.0
        self._prefix = prefix
        given = {"REC2PM_WORKER": name} if named else {}
        self._env = {**env, **given, "REC2PM_STATE_DIR": str(self.state), "CRASH_FOLDER": str(self.folder)}
        self._lock = threading.RLock()
        self._process: subprocess.Popen[bytes] | None = None
        self._wanted = False
        self._settings: Mapping[str, str] = {}
        self._failed_at: float | None = None

    def start(self, **settings: str) -> None:
        """Start it. `settings` are REC2PM_* of this process and of its restarts, until the next `start`."""
        with self._lock:
            self._settings = settings
            self._wanted = True
            self._launch()

    def start_once(self) -> None:
        """Start it, and leave it ended when it ends."""
        with self._lock:
            self._launch()

    def _launch(self) -> None:
        if self.running():
            raise RuntimeError(f"worker {self.name} runs already")
        self._failed_at = None
        self.starts += 1
        self.started_at = time.time()
        env = self._env | {f"REC2PM_{name}": value for name, value in self._settings.items()}
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*self._prefix, sys.executable, "-m", "tests.crash.worker"],
                cwd=ROOT,
                env=env,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
            )

    @property
    def pid(self) -> int | None:
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    def running(self) -> bool:
        return self.pid is not None

    def taking(self) -> bool:
        """True if it runs and read records a moment ago."""
        last = self._last_taken()
        return last is not None and time.time() - last < _A_MOMENT_S

    def silent_since(self) -> float:
        """When its present process took records last, else when it was started; now, when there is none."""
        if not self.running():
            return time.time()
        return self._last_taken() or self.started_at

    def _last_taken(self) -> float | None:
        pid, last = self.pid, plan.taking(self.folder)
        return last[1] if pid is not None and last is not None and last[0] == pid else None

    def kill(self) -> None:
        """SIGKILL. The supervisor starts it again."""
        self._signal(signal.SIGKILL)

    def pause(self) -> None:
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def dump_stacks(self) -> None:
        """Write the stacks of its threads into its log."""
        self._signal(signal.SIGUSR1)

    def terminate(self, timeout_s: float = 60.0) -> int:
        """SIGTERM, and its exit code; it stays down."""
        return self._down(signal.SIGTERM, timeout_s)

    @contextmanager
    def killed(self) -> Iterator[None]:
        """Killed and down for the length of the block, then started as before."""
        self._down(signal.SIGKILL, 30.0)
        try:
            yield
        finally:
            self.start(**self._settings)

    @contextmanager
    def terminated(self) -> Iterator[None]:
        """Stopped by SIGTERM and down for the length of the block, then started as before."""
        self.terminate()
        try:
            yield
        finally:
            self.start(**self._settings)

    def ended(self, timeout_s: float) -> int:
        """Wait for an end that comes by itself; the exit code."""
        wait_until(lambda: not self.running(), timeout_s, f"worker {self.name} ends")
        self.tend()
        return self.exits[-1].code

    def leave_alone(self) -> None:
        """Do not start it again from now on."""
        with self._lock:
            self._wanted = False

    def order(self, *orders: Order) -> None:
        plan.write(self.folder, orders)

    def events(self) -> list[Event]:
        return plan.events(self.folder)

    def tend(self) -> None:
        """Note an exit, and restart a failed process."""
        with self._lock:
            self._note_end(asked=False)
            if self._failed_at is not None and self._wanted and time.time() - self._failed_at >= _RESTART_AFTER_S:
                self._launch()

    def lose_state(self) -> None:
        """Its local stores, gone. Only while it is down."""
        if self.files.exists():
            shutil.rmtree(self.files)

    def _down(self, number: signal.Signals, timeout_s: float) -> int:
        with self._lock:
            self._note_end(asked=False)
            self._wanted = False
            process = self._process
            if process is None:
                return self.exits[-1].code  # it ended by itself a moment ago
            with suppress(ProcessLookupError):
                process.send_signal(number)
                process.send_signal(signal.SIGCONT)
            try:
                code = process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                raise TimeoutError(
                    f"worker {self.name} did not end within {timeout_s:.0f} s of {number.name}; log: {self.log}"
                ) from None
            self._note_end(asked=True)
            return code

    def _note_end(self, *, asked: bool) -> None:
        process = self._process
        if process is None or process.poll() is None:
            return
        if process.stdin is not None:
            process.stdin.close()
        self._process = None
        self.exits.append(Exit(time.time(), self.name, process.returncode, asked, _last_line(self.log)))
        self._failed_at = None if process.returncode == 0 else time.time()

    def _signal(self, number: signal.Signals) -> None:
        process = self._process
        if process is not None:
            process.send_signal(number)


class Supervisor:
    """Looks after workers on a thread of its own."""

    def __init__(self) -> None:
        self._workers: list[Worker] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._tend, name="supervisor", daemon=True)
        self._thread.start()

    def look_after(self, worker: Worker) -> Worker:
        self._workers.append(worker)
        return worker

    def close(self) -> None:
        """Stop looking, and end whatever still runs."""
        self._stop.set()
        self._thread.join()
        for worker in self._workers:
            worker.leave_alone()
            worker.kill()
        for worker in self._workers:
            if worker.starts:
                worker.ended(30)

    def exits(self) -> list[Exit]:
        return sorted((each for worker in self._workers for each in worker.exits), key=lambda each: each.time)

    def restarts(self) -> int:
        """How often a worker was started again."""
        return sum(max(0, worker.starts - 1) for worker in self._workers)

    def _tend(self) -> None:
        while not self._stop.wait(_LOOK_EVERY_S):
            for worker in list(self._workers):
                worker.tend()


def _last_line(log: Path) -> str:
    with log.open("rb") as lines:
        lines.seek(max(0, os.fstat(lines.fileno()).st_size - 4000))
        said = [line for line in lines.read().decode(errors="replace").splitlines() if line.strip()]
    return said[-1] if said else ""
