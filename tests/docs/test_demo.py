"""`rec2pm demo`, with a minute's training and traffic made a few seconds."""

import io
import os
import re
from pathlib import Path

import pytest
from rich.console import Console

from model.synthetic import SyntheticLog
from stream.commands import demo
from tests.docs.pages import ROOT


def test_the_demo_runs_to_its_end_as_its_picture_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "TRAINING_S", 3.0)
    monkeypatch.setattr(demo, "TRAFFIC_S", 3.0)
    monkeypatch.setattr(demo, "SyntheticLog", lambda: SyntheticLog(users=100))
    console = Console(file=io.StringIO(), width=126)
    environ = {name: value for name, value in os.environ.items() if not name.startswith("REC2PM_")}

    demo.run_demo(None, tmp_path, {**environ, "PYTHONPATH": str(ROOT)}, console)

    assert isinstance(console.file, io.StringIO)
    printed = console.file.getvalue()
    pictured = (ROOT / "docs/images/demo.svg").read_text().replace("&#160;", " ")
    steps = re.findall(r"^\d\. .*?(?=  )", printed, re.MULTILINE)
    assert steps == ["1. The log", "2. The broker", "3. The model", "4. The workers", "5. Was it any good?"]
    assert [step for step in steps if step.partition(". ")[2] not in pictured] == []
    assert re.search(r"all users +[\d,]+ +[\d,]+ \([\d.]+%\)", printed)
    assert "Done in" in printed
