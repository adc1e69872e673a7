"""`rec2pm demo`, with a minute's training and traffic made a few seconds."""

import io
import os
import re
from pathlib import Path

import pytest
from rich.console import Console

from model.synthetic import SyntheticLog
from stream.commands.demo import log, promotion, run
from tests import quick_gate
from tests.docs.pages import ROOT
from tests.quick_java import quick_java


def test_the_demo_runs_to_its_end_as_its_picture_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "TRAINING_S", 3.0)
    monkeypatch.setattr(run, "NEXT_TRAINING_S", 1.0)
    monkeypatch.setattr(run, "TRAFFIC_S", 3.0)
    monkeypatch.setattr(promotion, "REC2PM", quick_gate.COMMAND)
    monkeypatch.setattr(log, "SyntheticLog", lambda: SyntheticLog(users=100))
    console = Console(file=io.StringIO(), width=126)
    environ = quick_java({name: value for name, value in os.environ.items() if not name.startswith("REC2PM_")})

    run.run_demo(None, tmp_path, {**environ, "PYTHONPATH": str(ROOT)}, console)

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
