"""The alerts ask for what workers tell, each is explained, and each fires."""

import re
import shutil
import subprocess
from typing import Any

import pytest
import yaml

from stream.errors import ACTIONS
from tests.deploy.queries import problems, told
from tests.docs.pages import ROOT

PROMETHEUS = ROOT / "deploy" / "prometheus"
RUNBOOK = ROOT / "deploy" / "RUNBOOK.md"


def alerts() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load((PROMETHEUS / "alerts.yaml").read_text())["groups"]
    found: list[dict[str, Any]] = group["rules"]
    return found


def test_an_alert_asks_for_what_a_worker_tells() -> None:
    known = told()
    wrong = {alert["alert"]: list(problems(alert["expr"], known)) for alert in alerts()}
    assert not any(wrong.values()), wrong


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        ("rec2pm_lag > 1", "no metric rec2pm_lag"),
        ('rec2pm_state{state="sleeping"} == 1', "rec2pm_state has no state=sleeping"),
        ('rec2pm_steps_total{reason="x"}', "rec2pm_steps_total has no label reason"),
        ("sum by (partition) (rec2pm_steps_total)", "no label partition to group by"),
        ("max by (job, partition) (rec2pm_lag_records)", None),
        ("sum by (le) (rec2pm_step_seconds_bucket)", None),
    ],
)
def test_a_query_for_what_no_worker_tells_is_found(query: str, problem: str | None) -> None:
    assert list(problems(query, told())) == ([] if problem is None else [problem])


def test_each_alert_and_each_error_has_an_entry_in_the_runbook() -> None:
    text = RUNBOOK.read_text()
    names = [alert["alert"] for alert in alerts()]
    assert re.findall(r"^### (\w+)$", text, re.MULTILINE) == names
    for entry in re.split(r"^### \w+$", text, flags=re.MULTILINE)[1:]:
        assert re.search(r"^\*\*Means\*\*: .+\n\n\*\*Do\*\*: ", entry.strip(), re.MULTILINE | re.DOTALL), entry
    assert re.findall(r"^\| `(\w+)` \| .+ \| .+ \|$", text, re.MULTILINE) == [error.__name__ for error in ACTIONS]
    for alert in alerts():
        assert alert["annotations"]["runbook_url"] == f"deploy/RUNBOOK.md#{alert['alert'].lower()}"


def test_each_alert_has_a_test_in_which_it_is_silent_and_fires() -> None:
    tests = yaml.safe_load((PROMETHEUS / "alerts_test.yaml").read_text())["tests"]
    fires: dict[str, set[bool]] = {}
    for test in tests:
        for case in test["alert_rule_test"]:
            fires.setdefault(case["alertname"], set()).add(bool(case["exp_alerts"]))
    assert fires == {alert["alert"]: {False, True} for alert in alerts()}


def test_promtool_agrees() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not in PATH: Debian's package `prometheus` has it")
    for command in (["check", "rules", "alerts.yaml"], ["test", "rules", "alerts_test.yaml"]):
        done = subprocess.run([promtool, *command], cwd=PROMETHEUS, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
