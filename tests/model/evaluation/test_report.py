import io
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest
from matplotlib.image import imread
from rich.console import Console

from model.evaluation import probes, report
from model.evaluation.compare import Evaluation, EvaluationOptions, evaluate
from model.evaluation.significance import Estimate
from model.version.manifest import Training
from tests.model import tiny


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Evaluation:
    root = tmp_path_factory.mktemp("registry")
    versions = [tiny.add(root, "first", 0), tiny.add(root, "second", 1)]
    rng = np.random.default_rng(7)
    n = 6_000
    log = pl.DataFrame(
        {
            "user_id": rng.integers(0, 120, n),
            "item_id": [f"item-{i}" for i in rng.integers(1, 63, n)],
            "timestamp": np.arange(n),
        }
    )
    return evaluate(log.lazy(), versions, EvaluationOptions(), log_name="clicks.csv", progress=lambda *_: None)


@pytest.fixture(scope="module")
def folder(found: Evaluation, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("out") / "report"
    assert report.write(found, folder, arguments={"users": None}, versions={"rec2pm": "1.2.3"}) == folder / "report.md"
    return folder


def test_every_picture_is_in_the_report_and_has_something_on_it(folder: Path) -> None:
    text = (folder / "report.md").read_text()
    named = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", text)
    assert sorted(named) == sorted(path.name for path in folder.glob("*.png"))
    assert {"accuracy.png", "history.png", "position.png", "folds.png", "shuffle.png", "drift.png"} == set(named)
    for name in named:
        assert imread(folder / name)[:, :, :3].std() > 0.03, name


def _numbers(found: Any) -> list[float]:
    if isinstance(found, dict):
        return [number for value in found.values() for number in _numbers(value)]
    if isinstance(found, list):
        return [number for value in found for number in _numbers(value)]
    return [found] if isinstance(found, int | float) else []


def test_every_number_of_the_tables_is_in_the_json(folder: Path) -> None:
    """All with four decimals, as they are printed; a difference of rounding apart."""
    told = {f"{abs(number):.4f}" for number in _numbers(msgspec.json.decode((folder / "metrics.json").read_bytes()))}
    printed = re.findall(
        r"\d\.\d{4}",
        "\n".join(line for line in (folder / "report.md").read_text().splitlines() if line.startswith("|")),
    )
    assert len(printed) > 200
    assert set(printed) - told == set()


def test_the_json_says_what_it_is_of(folder: Path, found: Evaluation) -> None:
    told = msgspec.json.decode((folder / "metrics.json").read_bytes())
    assert (told["arguments"], told["versions"]) == ({"users": None}, {"rec2pm": "1.2.3"})
    assert told["asked"]["sha256"] == found.asked.sha256
    assert [mode["name"] for mode in told["modes"]] == ["stream", "readme"]
    assert told["modes"][0]["rankings"][0]["hr"]["10"]["value"] == found.modes[0].rankings[0].hr[10].value
    assert [verdict["passed"] for verdict in told["verdicts"]["first@1"]] == [
        v.passed for v in probes.verdicts(found.subjects[0].probes)
    ]
    assert told["warnings"] == report.warnings(found)
    assert found.asked.sha256 in (folder / "report.md").read_text()


def test_what_is_in_a_column_is_what_its_head_says(folder: Path, found: Evaluation) -> None:
    text = (folder / "report.md").read_text()
    shuffled, pair = found.subjects[0].probes.shuffled, found.modes[0].rankings[1].against_first
    assert shuffled is not None
    assert pair is not None
    own = [
        f"{each.value:.4f} [" for each in (shuffled.hr_own, shuffled.hr_others, shuffled.ndcg_own, shuffled.ndcg_others)
    ]
    assert re.search(rf"\| first@1 \| {shuffled.users} \| " + r"[^|]+\| ".join(map(re.escape, own)), text)
    assert f"| {pair.only_second} | {pair.only_first} |" in next(
        line for line in text.splitlines() if line.startswith(("| second@1 | +", "| second@1 | -"))
    )
    best = found.modes[0].rankings[0]
    hr = [f"{best.hr[k].value:.4f} [" for k in (1, 10, 50, 200)]
    assert re.search(r"\| first@1 \| " + r"[^|]+\| ".join(map(re.escape, hr)), text)


def test_every_table_has_as_many_cells_in_every_row(folder: Path) -> None:
    for block in re.findall(r"(?:^\|.*\n)+", (folder / "report.md").read_text(), flags=re.M):
        assert len({line.replace("\\|", "").count("|") for line in block.splitlines()}) == 1, block


def test_models_that_saw_the_targets_are_called_out(found: Evaluation) -> None:
    assert any("first@1: its manifest does not say what it was trained on" in line for line in report.warnings(found))
    training = Training(
        log="log.parquet",
        rows=1,
        users=1,
        items=1,
        from_ms=0,
        until_ms=5_000,
        split="by time: the first half",
        seed=0,
        epochs=1,
        best_epoch=1,
        wall_s=1.0,
        samples=1,
    )
    first = found.subjects[0]
    saw = replace(first, saw=30, outside=0, manifest=replace(first.manifest, training=training))
    better = _with_popularity(found, 0.0)
    lines = report.warnings(replace(better, subjects=[saw]))
    assert lines[0].startswith(
        "first@1 saw 30 of 120 targets (25%) in training, so its numbers are too good. It was trained until 1970-01-01 00:00:05 UTC (by time: "
    )
    assert "was trained on 'log.parquet', not on 'clicks.csv'" in lines[1]
    clean = replace(saw, saw=0, manifest=replace(first.manifest, training=replace(training, log="clicks.csv")))
    assert report.warnings(replace(better, subjects=[clean])) == []
    outside = replace(clean, outside=3, outside_examples='"007"; the catalogue has 7')
    assert report.warnings(replace(better, subjects=[outside])) == [
        'first@1: 3 of 120 targets (2%) are not in its catalogue and count as missed, such as "007"; the catalogue has 7'
    ]


def _with_popularity(found: Evaluation, value: float) -> Evaluation:
    """The same, with another HR@10 and NDCG@10 of the popularity list."""
    same = Estimate(value, value, value)
    modes = [
        replace(
            mode,
            rankings=[
                replace(each, hr={**each.hr, 10: same}, ndcg={**each.ndcg, 10: same})
                if each.name == "popularity"
                else each
                for each in mode.rankings
            ],
        )
        for mode in found.modes
    ]
    return replace(found, modes=modes)


def test_a_model_worse_than_popularity_is_called_so_first(found: Evaluation, tmp_path: Path) -> None:
    assert not [line for line in report.warnings(_with_popularity(found, 0.0)) if "worse" in line]
    worse = _with_popularity(found, 0.9)
    lines = report.warnings(worse)
    hr, ndcg = (getattr(found.modes[0].rankings[0], name)[10].value for name in ("hr", "ndcg"))
    assert lines[0].startswith(
        f"first@1 is worse than the popularity list: HR@10 {hr:.4f} against 0.9000, NDCG@10 {ndcg:.4f} against 0.9000 (stream-mode)"
    )
    assert lines[1].startswith("second@1 is worse")
    report.write(worse, tmp_path, arguments={}, versions={})
    written = (tmp_path / "report.md").read_text()
    assert written.index("is worse than the popularity list") < written.index("## Models")
    assert (
        "is worse than the popularity list"
        in msgspec.json.decode((tmp_path / "metrics.json").read_bytes())["warnings"][0]
    )


def test_targets_outside_the_catalogue_are_shown_beside_it(found: Evaluation) -> None:
    first = found.subjects[0]
    assert first.outside > 0
    assert first.outside_examples.startswith('"item-6')
    assert '; the catalogue has "item-' in first.outside_examples


def test_the_table_fits_a_terminal_and_has_a_row_for_everybody(found: Evaluation) -> None:
    console = Console(width=140, record=True, file=io.StringIO())
    console.print(report.table(found))
    lines = console.export_text().splitlines()
    rows = [
        line.split()
        for line in lines
        if line.split() and line.split()[0] in ("first@1", "second@1", "popularity", "last")
    ]
    assert [row[0] for row in rows] == ["first@1", "second@1", "popularity", "last"]
    stream = found.modes[0].rankings[1]
    assert rows[1][1:3] == [f"{stream.hr[10].value:.4f}", f"{stream.ndcg[10].value:.4f}"]
