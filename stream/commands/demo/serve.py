"""The end of `rec2pm demo --serve`: the view beside the workers, with some traffic to watch, until it is stopped."""

import csv
import itertools
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import util
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from rich.console import Console

from model.errors import how_to_install
from stream.commands.broker import Broker
from stream.commands.command_line import REC2PM
from stream.commands.demo.log import Log
from stream.commands.demo.traffic import Served, Traffic
from stream.errors import KafkaUnusable, SettingsInvalid

LISTEN: Final = "127.0.0.1:6066"
ACTS_EVERY_S: Final = 0.5
_READY_WITHIN_S: Final = 90.0
_LOOK_S: Final = 0.2


def check_installed() -> None:
    """Raises SettingsInvalid without the extra `view`: before the demo has worked for minutes."""
    # Faust, once it is imported, has a module of its own without a spec.
    if "faust" not in sys.modules and util.find_spec("faust") is None:
        raise SettingsInvalid(f"--serve needs Faust: {how_to_install('view')}")


def serve(
    log: Log,
    cut: int,
    users: Sequence[str],
    broker: Broker,
    env: Mapping[str, str],
    folder: Path,
    console: Console,
    wall_ms: Callable[[], int],
) -> None:
    """Serve until the process is interrupted. The log's last interactions come again meanwhile, a few a second.

    Args:
        cut: how many interactions of the log are the past.
        users: whose page is opened (the first), and who act most.

    Raises:
        KafkaUnusable: the view has ended, or is not ready in time.
        KeyboardInterrupt: somebody stopped it.
    """
    with (folder / "items.csv").open("w", newline="", encoding="utf-8") as file:
        titles = csv.writer(file)
        titles.writerow(["item_id", "title"])
        titles.writerows(log.titles.items())
    with _view(env, folder) as view:
        console.print(
            f"\n[bold]The page[/]  http://{LISTEN}/#{quote(users[0], safe='')}  until you press Ctrl-C. "
            "Some users go on acting.",
            soft_wrap=True,
        )
        traffic = Traffic(broker, Served())
        try:
            for user, item in _acts(log, cut, users):
                traffic.send(user, item, wall_ms())
                traffic.flush()
                if view.poll() is not None:
                    raise _ended(view, folder)
                time.sleep(ACTS_EVERY_S)
        finally:
            traffic.close()


def _acts(log: Log, cut: int, users: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """What the users do, without end: every second interaction is of the first one."""
    rows = log.interactions.select("user_id", "item_id").rows()
    own = itertools.cycle([item for user, item in rows if user == users[0]])
    for user, item in itertools.cycle(rows[cut:] or rows):
        yield users[0], next(own)
        yield user, item


@contextmanager
def _view(env: Mapping[str, str], folder: Path) -> "Iterator[subprocess.Popen[bytes]]":
    """A view that is ready; it ends with the block."""
    options = ("--users", "--items", str(folder / "items.csv"), "--listen", LISTEN)
    with (folder / "view.log").open("wb") as out:
        view = subprocess.Popen([*REC2PM, "view", *options], env=dict(env), stdout=out, stderr=out)
    try:
        until = time.monotonic() + _READY_WITHIN_S
        while not _ready():
            if view.poll() is not None:
                raise _ended(view, folder)
            if time.monotonic() > until:
                raise KafkaUnusable(f"the view was not ready within {_READY_WITHIN_S:.0f} s; see {folder / 'view.log'}")
            time.sleep(_LOOK_S)
        yield view
    finally:
        view.terminate()
        try:
            view.wait(10)
        except subprocess.TimeoutExpired:
            view.kill()


def _ended(view: "subprocess.Popen[bytes]", folder: Path) -> KafkaUnusable:
    return KafkaUnusable(f"the view ended with exit code {view.returncode}; see {folder / 'view.log'}")


def _ready() -> bool:
    try:
        with urllib.request.urlopen(f"http://{LISTEN}/ready", timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False
