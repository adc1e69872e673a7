"""Pages as they are followed: every command of a page in one shell, one page after the other in one folder.

Commands are run as they stand, but for what would take long or be taken already on this machine: `changed` says what is
written otherwise. What a page shows must be what is printed: each line of it, in this order, up to the numbers in it.
"""

import os
import re
import select
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final

from tests import quick_gate
from tests.docs import pages
from tests.docs.pages import ROOT, Block, Command

COMMAND_S: Final = 120.0
SETTLED_S: Final = 30.0
"""So long may a worker need until a command that only looks shows what its page shows."""
_LOOKS: Final = re.compile(
    r"curl |cat |tail |python read_|rec2pm (user show|dead-letters (list|show)|user forget \S+$)"
)
_SHORT: Final = {
    "max_seconds=60": "max_seconds=8",
    "sleep 1;": "sleep 0.1;",
    "rec2pm models promote": f"{shlex.join(quick_gate.COMMAND)} models promote",
}
_END: Final = "end-of-command"
_NUMBER: Final = re.compile(r"\b[0-9a-f]*\d[0-9a-f]*(?:[.,:-]\d+)*")
_TIME_OR_ULID: Final = re.compile(r"\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ|\b[0-7][0-9A-HJKMNP-TV-Z]{25}\b")
_ARRAY: Final = re.compile(r"\[[^\]]*\]")


@dataclass(frozen=True, slots=True)
class Ran:
    """A command as it was run, all that it printed, and its exit code."""

    text: str
    printed: str
    code: int


Told = Callable[[Command, Ran], None]


def changed(bootstrap: str, view_port: int, metrics_port: int, *, short: bool = True) -> Mapping[str, str]:
    """What is written otherwise in commands and files."""
    return {
        "127.0.0.1:9092": bootstrap,
        "kafka:9092": bootstrap,
        "--replication 3": "--replication 1",
        "127.0.0.1:6066": f"127.0.0.1:{view_port}",
        "127.0.0.1:9464": f"127.0.0.1:{metrics_port}",
        **(_SHORT if short else {}),
    }


def environ(metrics_port: int) -> dict[str, str]:
    """As in a virtual environment with this checkout installed; no setting of this process leaks into it."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("REC2PM_")}
    path = f"{Path(sys.executable).parent}{os.pathsep}{own.get('PATH', '')}"
    return {**own, "PATH": path, "PYTHONPATH": str(ROOT), "REC2PM_METRICS_LISTEN": f"127.0.0.1:{metrics_port}"}


class Shell:
    """A bash that runs one command after the other and says of each what it printed and how it ended."""

    def __init__(self, folder: Path, env: Mapping[str, str]) -> None:
        # Job control, for `kill %1`; what runs in the background ends with the shell.
        begin = "set -m\ntrap 'kill $(jobs -p) 2>/dev/null; wait' EXIT\n"
        self._bash = subprocess.Popen(
            ["bash", "--norc", "--noprofile"],
            cwd=folder,
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        self._code = 0
        self._write(begin)

    def run(self, command: str, timeout_s: float = COMMAND_S) -> Ran:
        """Run a command to its end.

        Raises:
            TimeoutError: it takes longer.
        """
        self._write(f"(exit {self._code})\n{{ {command}\n}} </dev/null 2>&1\nprintf '\\n{_END} %d\\n' $?\n")
        assert self._bash.stdout is not None
        printed, deadline = b"", time.monotonic() + timeout_s
        while not (end := re.search(rb"\n%s (\d+)\n$" % _END.encode(), printed)):
            if not select.select([self._bash.stdout], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise TimeoutError(f"not within {timeout_s:.0f} s: {command}\n{printed.decode()}")
            if not (more := os.read(self._bash.stdout.fileno(), 1 << 16)):
                raise EOFError(f"the shell ended: {command}\n{printed.decode()}")
            printed += more
        self._code = int(end[1])
        return Ran(command, printed[: end.start()].decode(), self._code)

    def close(self) -> None:
        assert self._bash.stdin is not None
        assert self._bash.stdout is not None
        self._bash.stdin.close()
        try:
            self._bash.wait(COMMAND_S)
        except subprocess.TimeoutExpired:
            os.killpg(self._bash.pid, signal.SIGKILL)
            raise
        finally:
            self._bash.stdout.close()

    def _write(self, text: str) -> None:
        assert self._bash.stdin is not None
        self._bash.stdin.write(text.encode())
        self._bash.stdin.flush()


@contextmanager
def shell(folder: Path, env: Mapping[str, str]) -> Iterator[Shell]:
    opened = Shell(folder, env)
    try:
        yield opened
    finally:
        opened.close()


def followed(name: str, folder: Path, env: Mapping[str, str], change: Mapping[str, str], told: Told) -> list[str]:
    """Follow a page; returns which commands do otherwise than it says. A command that fails is the last one."""
    wrong: list[str] = []
    with shell(folder, env) as bash:
        for block in pages.page(name).blocks:
            if block.title is not None and "not run" not in block.marks:
                (folder / block.title).write_text(_changed("\n".join(block.lines) + "\n", change))
            if "not run" in block.marks:
                continue
            commands = block.commands()
            asked_for = {before for before, after in pairwise(commands) if after.text == "echo $?"}
            for command in commands:
                ran = _run(bash, command, block, change, fails=command in asked_for)
                told(command, ran)
                if ran.code and command not in asked_for:
                    return [*wrong, f"{name}:{command.line}: {ran.text}: exit code {ran.code}:\n{ran.printed}"]
                if "output varies" not in block.marks and (missing := first_missing(command, ran.printed)):
                    wrong.append(f"{name}:{command.line}: {ran.text}: does not print\n{missing}\nbut\n{ran.printed}")
    return wrong


def _run(bash: Shell, command: Command, block: Block, change: Mapping[str, str], *, fails: bool) -> Ran:
    """Once; a command that only looks, until it shows what its page shows. `fails`: its page shows its exit code."""
    deadline = time.monotonic() + SETTLED_S
    while True:
        ran = bash.run(_changed(command.text, change))
        as_shown = (fails or not ran.code) and (
            "output varies" in block.marks or not first_missing(command, ran.printed)
        )
        if as_shown or not _LOOKS.match(command.text) or time.monotonic() > deadline:
            return ran
        time.sleep(0.2)


def _changed(text: str, change: Mapping[str, str]) -> str:
    for written, instead in change.items():
        text = text.replace(written, instead)
    return text


def first_missing(command: Command, printed: str) -> str | None:
    """The first line of a command's output in its page that is not printed after the line before it.

    Numbers, hexadecimal ids, what is in square brackets and the width of columns may differ; `…` stands for anything,
    alone for any number of lines; progress bars do not count. Of `echo $?` the number counts.
    """
    alike = str.strip if command.text == "echo $?" else _alike
    lines = iter(alike(line) for line in printed.splitlines())
    for shown in command.output:
        if shown.strip() in ("", "…") or is_bar(shown):
            continue
        if not any(_matches(alike(shown), line) for line in lines):
            return shown
    return None


def is_bar(line: str) -> bool:
    """Whether a line is what a progress bar leaves behind."""
    return "━" in line


def _alike(line: str) -> str:
    return " ".join(_NUMBER.sub("0", _TIME_OR_ULID.sub("0", _ARRAY.sub("[]", line))).split())


def _matches(shown: str, printed: str) -> bool:
    return re.fullmatch(".*".join(map(re.escape, shown.split("…"))), printed) is not None
