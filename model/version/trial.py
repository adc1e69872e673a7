"""A version is tried in a process of its own, before a program that must not fail loads it.

An artifact is code. It can hang, crash, or take all memory, and no handler of this process would stop that. So a child
loads it, warms it up, asks for the golden lists and measures, within limits of time and memory. This file is both
sides: `tried` starts and watches the child, which is `python -m model.version.trial`.
"""

import ctypes
import json
import os
import resource
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from model.errors import ModelError
from model.version import artifact, golden, memory
from model.version.checked_files import CheckedFiles
from model.version.manifest import GOLDEN, PROGRAM

_BASE_BYTES: Final = 320 << 20
"""What a child takes that holds no model: Python, torch, and what is compiled."""
_TIMES_THE_FILE: Final = 4
"""A load holds the file, its weights, and a copy of them at once; a little more for the calls."""
_LOOK_S: Final = 0.02
"""How often the child's memory is looked at. In this time a program can take some tens of MB more."""
_START_S: Final = 60.0
"""The child is killed if it has not begun with the version by then."""
_LAST_WORDS: Final = 4_096
_LONGEST: Final = 600
_CALLS: Final = 400
_CALLS_S: Final = 10.0
_FEWEST_CALLS: Final = 20
_NICE: Final = 10
_MB: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Trial:
    """What became of a trial. `why` is None if the version passed, else why it must not be loaded, in words.

    `load_s` and `warm_up_s` are seconds. `p50_ms` and `p95_ms` are processor time of one list for one user with a
    memory and half a segment. `rss_bytes` is what the child took. Figures are None if the trial did not come so far.
    """

    why: str | None = None
    load_s: float | None = None
    warm_up_s: float | None = None
    p50_ms: float | None = None
    p95_ms: float | None = None
    rss_bytes: int | None = None


def tried(folder: Path, sha256: str | None = None, *, timeout_s: float, memory_bytes: int | None = None) -> Trial:
    """Try the version in a folder. It returns when the trial is over; no error of the version is raised.

    Args:
        folder: of the version, on this machine.
        sha256: what the version must have, as `Runtime.load` takes it.
        timeout_s: the child is killed when it has worked on the version for so long.
        memory_bytes: the child is killed when it has taken so much. None: what there is.
    """
    if (why := _no_room(folder, memory_bytes)) is not None:
        return Trial(why)
    free = memory.free_bytes()
    limits = [each for each in (memory_bytes, free) if each is not None]
    results, send = os.pipe()
    command = [
        sys.executable,
        "-P",
        "-m",
        "model.version.trial",
        str(folder),
        sha256 or "",
        str(send),
        str(os.getpid()),
    ]
    try:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=_environment(),
            pass_fds=(send,),
            start_new_session=True,
        )
    except OSError as error:
        os.close(results)
        return Trial(f"no process can be started to try it: {error}")
    finally:
        os.close(send)
    watched = _Watched(child, results)
    try:
        return watched.trial(timeout_s, min(limits) if limits else None)
    finally:
        watched.end()


def _no_room(folder: Path, memory_bytes: int | None) -> str | None:
    """Why there is no memory for the child and for the load that follows, in words; None: there is."""
    program = folder / PROGRAM
    size = program.stat().st_size if program.is_file() else 0
    needed = _BASE_BYTES + _TIMES_THE_FILE * size
    free = memory.free_bytes()
    for there, words in ((free, "are free"), (memory_bytes, "are allowed")):
        if there is not None and needed > there:
            return (
                f"it is too large for the memory there is: {PROGRAM} has {_mb(size)}, a load needs about "
                f"{_mb(needed)}, {_mb(there)} {words}"
            )
    return None


def _environment() -> dict[str, str]:
    """Ours, less the settings, which may be secrets, and with one thread for each library that computes."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("REC2PM_")}
    return own | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


class _Watched:
    """The child, the lines it sends, and the end of what it complains of."""

    def __init__(self, child: subprocess.Popen[bytes], results: int) -> None:
        self._child, self._results = child, results
        assert child.stderr is not None
        self._errors = child.stderr.fileno()
        self._sent, self._said = b"", b""
        self._open = selectors.DefaultSelector()
        self._open.register(results, selectors.EVENT_READ)
        self._open.register(self._errors, selectors.EVENT_READ)

    def trial(self, timeout_s: float, memory_bytes: int | None) -> Trial:
        begun, limit_s = False, _START_S
        deadline = time.monotonic() + limit_s
        while (ended := self._ended()) is None:
            self._read(_LOOK_S)
            if not begun and self._sent:
                # What came before was the start of Python and torch, which takes long on a busy machine.
                begun, limit_s = True, timeout_s
                deadline = time.monotonic() + limit_s
            took = memory.rss_bytes(self._child.pid)
            if memory_bytes is not None and took is not None and took > memory_bytes:
                return Trial(
                    f"it is too large for the memory there is: while {self._doing()} it had taken {_mb(took)}, "
                    f"at most {_mb(memory_bytes)} are allowed"
                )
            if time.monotonic() > deadline:
                return Trial(f"it did not end within {limit_s:g} s: it was {self._doing()}")
        while self._read(0):
            pass
        return self._result(ended)

    def _ended(self) -> str | None:
        """How it ended; None: it runs. It stays a zombie, so that no other process gets its number before `end`."""
        ended = os.waitid(os.P_PID, self._child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if ended is None:
            return None
        if ended.si_code == os.CLD_EXITED:
            return f"exit code {ended.si_status}"
        return signal.Signals(ended.si_status).name

    def end(self) -> None:
        """Kill what still runs of it and of what it has started."""
        with suppress(ProcessLookupError):
            os.killpg(self._child.pid, signal.SIGKILL)
        self._open.close()
        os.close(self._results)
        if self._child.stderr is not None:
            self._child.stderr.close()
        self._child.wait()

    def _read(self, wait_s: float) -> bool:
        """Take what has come, after at most this time. False: nothing has."""
        ready = self._open.select(wait_s)
        for key, _ in ready:
            data = os.read(key.fd, 65_536)
            if not data:
                self._open.unregister(key.fd)
            elif key.fd == self._results:
                self._sent += data
            else:
                self._said = (self._said + data)[-_LAST_WORDS:]
        return bool(ready)

    def _lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._sent.splitlines(keepends=True) if line.endswith(b"\n")]

    def _doing(self) -> str:
        doing = [line["doing"] for line in self._lines() if "doing" in line]
        return doing[-1] if doing else "starting"

    def _result(self, ended: str) -> Trial:
        results = [line["result"] for line in self._lines() if "result" in line]
        if results:
            found = Trial(**results[-1])
            return found if found.why is None else replace(found, why=_plain(found.why))
        killed = ": most likely there was no memory left" if ended == "SIGKILL" else ""
        words = [line for line in self._said.decode(errors="replace").splitlines() if line.strip()]
        last = f". Its last words: {_plain(words[-1])}" if words else ""
        return Trial(f"the process that tried it ended with {ended} while {self._doing()}{killed}{last}")


def _plain(text: str) -> str:
    """One line, cut, of text that a program made."""
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST else line[:_LONGEST] + "…"


def _mb(size: int) -> str:
    return f"{-(-size // _MB):,} MB"


def main(arguments: Sequence[str]) -> None:
    """The child. Arguments: the folder, a SHA-256 or "", the descriptor for what it sends, its parent."""
    folder, sha256, descriptor, parent = arguments
    _be_the_first_to_go(int(parent))
    with os.fdopen(int(descriptor), "w", encoding="utf-8", buffering=1) as out:

        def send(line: object) -> None:
            out.write(json.dumps(line) + "\n")

        send({"result": asdict(_trial(Path(folder), sha256 or None, lambda doing: send({"doing": doing})))})
    # Nothing that the program has started or registered runs on.
    os._exit(0)


def _be_the_first_to_go(parent: int) -> None:
    """End with the parent, before it where memory is short, and leave the processor to it."""
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    if sys.platform == "linux":
        # PR_SET_PDEATHSIG. The parent is the thread that called `tried`, which outlives the child unless it is killed.
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    if os.getppid() != parent:
        os._exit(1)  # it ended before we could ask to be told
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.nice(_NICE)


def _trial(folder: Path, sha256: str | None, doing: Callable[[str], None]) -> Trial:
    """Do to the version what a worker would. Whatever it raises becomes words."""
    trial = Trial()
    try:
        import torch

        from model.version.runtime import Runtime

        torch.set_num_threads(1)
        doing("loading")
        before = time.perf_counter()
        loaded = artifact.load(folder, sha256)
        runtime = Runtime(loaded)
        trial = replace(trial, load_s=time.perf_counter() - before)
        doing("warming up")
        before = time.perf_counter()
        runtime.warm_up()
        trial = replace(trial, warm_up_s=time.perf_counter() - before)
        doing("making the golden lists")
        golden.check(loaded.program, CheckedFiles.at(folder, sha256).read(GOLDEN))
        doing("measuring")
        p50_ms, p95_ms = _times_of_a_list(runtime)
        return replace(trial, p50_ms=p50_ms, p95_ms=p95_ms, rss_bytes=memory.rss_bytes())
    except ModelError as error:
        return replace(trial, why=str(error))
    except Exception as error:
        return replace(trial, why=f"{type(error).__name__}: {error}")


def _times_of_a_list(runtime: Any) -> tuple[float, float]:
    """p50 and p95 of one list for one user, with a memory and half a segment, ms of processor time: on a busy machine a
    program waits longer than it computes, and two versions could not be compared.
    """
    L, V = runtime.segment_length, runtime.oov_row - 1
    drawn = np.random.default_rng(0)
    n = max(1, L // 2)
    times = np.arange(L, dtype=np.int64)[None] if runtime.uses_time else None
    now = None if times is None else times[:, -1]
    user = runtime.fold(np.zeros((1, runtime.state_floats), np.float32), drawn.integers(1, V + 1, (1, L)), times).memory
    lengths = np.array([n])
    took: list[float] = []
    begun = time.perf_counter()
    while len(took) < _CALLS and (len(took) < _FEWEST_CALLS or time.perf_counter() < begun + _CALLS_S):
        rows = drawn.integers(1, V + 1, (1, n))
        before = time.process_time()
        runtime.recommend(user, rows, lengths, 10, rows, None if times is None else times[:, :n], now)
        took.append((time.process_time() - before) * 1_000)
    p50, p95 = np.percentile(took, [50, 95])
    return float(p50), float(p95)


if __name__ == "__main__":
    main(sys.argv[1:])
