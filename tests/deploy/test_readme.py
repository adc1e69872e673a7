"""deploy/README.md: what is typed there fits the chart, the compose file and the Procfile."""

import re
import shlex
from typing import Final

import pytest

from tests.deploy import test_compose
from tests.docs import pages
from tests.processes import ROOT

helm = pytest.importorskip("helm_python", reason="helm-python-sdk is not installed: it has no wheel for this machine")

from tests.deploy.test_chart import CHART, LEAST, Object, installed  # noqa: E402  # it needs the same package

PAGE: Final = pages.page("deploy/README.md")
TYPED: Final = [shlex.split(each.text.replace("\\\n", " ")) for block in PAGE.blocks for each in block.commands()]


def option(words: list[str], name: str) -> list[str]:
    return [words[at + 1] for at, word in enumerate(words) if word == name]


def test_the_release_that_is_typed_is_accepted_and_has_what_is_looked_at() -> None:
    (install,) = [words for words in TYPED if words[:2] == ["helm", "install"]]
    values: Object = {}
    for each in option(install, "--set"):
        path, _, value = each.partition("=")
        *parents, last = path.split(".")
        inside = values
        for parent in parents:
            inside = inside.setdefault(parent, {})
        inside[last] = value

    assert ROOT / install[3] == CHART
    printed = "\n".join(installed(values, install[2]).values())
    (status,) = [words for words in TYPED if words[:3] == ["kubectl", "rollout", "status"]]
    kind, _, name = status[3].partition("/")
    assert re.search(rf"^kind: {kind}\nmetadata:\n  name: {name}$", printed, re.MULTILINE | re.IGNORECASE)
    (test,) = [words for words in TYPED if words[:2] == ["helm", "test"]]
    assert test[2] == install[2]


def test_every_value_that_is_named_is_one() -> None:
    with helm.Chart.load(CHART) as chart:
        known = chart.merge_values(LEAST)
    for span in PAGE.spans():
        path = span.partition(":")[0]
        if re.fullmatch(r"(topics|worker|autoscaling|monitoring|view|trainer|reset|models)(\.[a-zA-Z]+)+", path):
            inside = known
            for part in path.split("."):
                assert part in inside, span
                inside = inside[part]


def test_docker_is_told_files_that_are_there() -> None:
    for words in TYPED:
        if words[0] == "docker":
            assert all((ROOT / each).is_file() for each in option(words, "-f")), words


def test_addresses_are_those_that_compose_publishes() -> None:
    published = {
        port.rpartition(":")[0] for service in test_compose.SERVICES.values() for port in service.get("ports", [])
    }
    text = (ROOT / "deploy" / "README.md").read_text()
    named = set(re.findall(r"(127\.0\.0\.1:\d+)", text.partition("## Kubernetes")[0]))

    assert named
    assert named <= published


def test_the_view_listens_where_the_page_says() -> None:
    (start,) = [words for words in TYPED if words[:2] == ["honcho", "start"]]
    (base,) = option(start, "-p")

    # A runner adds 100 for each process before it; the view is the second one.
    assert f"here on {int(base) + 100}, without a runner on 6066" in " ".join(PAGE.prose.split())
    assert re.search(r"^view: .*\$\{PORT:-6066\}$", (ROOT / "Procfile").read_text(), re.MULTILINE)
