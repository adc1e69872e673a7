"""`rec2pm demo`, with a minute's training and traffic made a few seconds."""

import _thread
import io
import json
import os
import re
import signal
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from rich.console import Console

from model.synthetic import SyntheticLog
from stream.commands.demo import log, promotion, run, serve
from tests import quick_gate
from tests.crash.ports import free_port
from tests.docs.pages import ROOT
from tests.quick_java import quick_java


class Watched(threading.Thread):
    """Asks the page's view until the first user has acted a few times, then interrupts the demo as Ctrl-C does."""

    def __init__(self, listen: str) -> None:
        super().__init__()
        self._url = f"http://{listen}/users"
        self.over = threading.Event()
        self.counts: set[int] = set()
        self.titles: dict[str, str] = {}

    def run(self) -> None:
        while not self.over.wait(0.2) and len(self.counts) < 3:
            with suppress(OSError):
                for each in self._get("")["active"][:1]:
                    told = self._get(f"/{each['user']}")
                    self.counts.add(told["taken"])
                    self.titles |= told["titles"]
        if not self.over.is_set():
            _thread.interrupt_main()

    def _get(self, path: str) -> Any:
        with urlopen(self._url + path, timeout=5) as answer:
            return json.load(answer)


def test_the_demo_runs_to_its_end_as_its_picture_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "TRAINING_S", 3.0)
    monkeypatch.setattr(run, "NEXT_TRAINING_S", 1.0)
    monkeypatch.setattr(run, "TRAFFIC_S", 3.0)
    monkeypatch.setattr(promotion, "REC2PM", quick_gate.COMMAND)
    monkeypatch.setattr(log, "SyntheticLog", lambda: SyntheticLog(users=100))
    console = Console(file=io.StringIO(), width=126)
    environ = quick_java({name: value for name, value in os.environ.items() if not name.startswith("REC2PM_")})

    listen = f"127.0.0.1:{free_port()}"
    monkeypatch.setattr(serve, "LISTEN", listen)
    watched = Watched(listen)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job of a shell ignores it
    watched.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            run.run_demo(None, tmp_path, {**environ, "PYTHONPATH": str(ROOT)}, console, serves=True)
    finally:
        watched.over.set()
        watched.join()
        signal.signal(signal.SIGINT, before)
    assert len(watched.counts) > 1, "users act while the page is there"
    assert watched.titles, "with titles"

    assert isinstance(console.file, io.StringIO)
    printed = console.file.getvalue()
    pictured = (ROOT / "docs/images/demo.svg").read_text().replace("&#160;", " ")
    titles = re.findall(r"^\d\. (.*?)  ", printed, re.MULTILINE)
    assert len(titles) == 6
    assert [title for title in titles if title not in pictured] == []
    assert re.search(r"all users +[\d,]+ +[\d,]+ \([\d.]+%\)", printed)
    assert "promoted demo@2 as champion, in place of demo@1" in printed
    assert re.search(r"all 2 workers served it [\d.]+ s later", printed)
    assert "Done in" in printed
    assert f"http://{listen}/#" in printed
