"""The dashboard asks for what workers tell. `python -m tests.dashboard` asks a real Prometheus."""

import json
from typing import Any

from tests.dashboard import ONLY_WHILE, panels, queries
from tests.deploy.queries import problems, told
from tests.docs.pages import ROOT


def test_each_query_asks_for_what_a_worker_tells() -> None:
    known = told()
    wrong = {(title, query): list(problems(query, known)) for title, query in queries()}
    assert not any(wrong.values()), wrong
    assert ONLY_WHILE.keys() <= known.keys()


def test_a_legend_names_labels_that_its_query_has() -> None:
    for panel in panels():
        for target in panel["targets"]:
            for label in [each.split("}}")[0] for each in target["legendFormat"].split("{{")[1:]]:
                grouped = f"by ({label})" in target["expr"]
                assert grouped or label in ("instance", "model"), (panel["title"], label)


def test_panels_do_not_overlap_and_use_the_data_source_that_is_chosen() -> None:
    board: dict[str, Any] = json.loads((ROOT / "deploy" / "grafana" / "rec2pm.json").read_text())
    assert [each["name"] for each in board["templating"]["list"]] == ["datasource"]
    places = set()
    for panel in board["panels"]:
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        places.add((at["x"], at["y"]))
    assert len(places) == len(board["panels"]) == len({each["id"] for each in board["panels"]})
