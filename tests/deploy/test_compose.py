"""deploy/compose.yaml: what Docker is asked for, where no engine is needed to see it."""

import re
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from stream.commands import broker_docker
from stream.settings import Settings
from tests.docs import known_commands
from tests.processes import ROOT

DEPLOY: Final = ROOT / "deploy"
COMPOSE: Final[dict[str, Any]] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
SERVICES: Final[dict[str, dict[str, Any]]] = COMPOSE["services"]
OURS: Final = [name for name, service in SERVICES.items() if service["image"] == "rec2pm"]
WORKERS: Final = [name for name in OURS if SERVICES[name]["command"] == ["worker"]]
MADE_BY_THE_USER: Final = {"../var/models"}
"""The registry: a model is trained before anything is started."""


def mounts(name: str) -> list[tuple[str, str, bool]]:
    """What is mounted, where, and whether it is read only."""
    parts = [each.split(":") for each in SERVICES[name].get("volumes", [])]
    return [(source, target, options == ["ro"]) for source, target, *options in parts]


def loaded(*parts: str) -> Any:
    return yaml.safe_load(DEPLOY.joinpath(*parts).read_text())


def test_everything_that_is_asked_for_is_there() -> None:
    assert set(SERVICES) == {"kafka", "topics", "view", "trainer", "prometheus", "grafana", *WORKERS}
    assert len(WORKERS) == 2


def test_tests_and_compose_use_one_kafka_of_a_supported_release() -> None:
    image = SERVICES["kafka"]["image"]
    assert image == broker_docker.IMAGE
    assert re.fullmatch(r"apache/kafka:4\.[2-9]\.\d+", image)


@pytest.mark.parametrize("name", SERVICES)
def test_every_image_has_a_version_or_is_built_here(name: str) -> None:
    image = SERVICES[name]["image"]
    if name in OURS:
        assert (DEPLOY / SERVICES[name]["build"]["context"] / SERVICES[name]["build"]["dockerfile"]).is_file()
    else:
        assert re.fullmatch(r"[a-z/]+:v?\d+\.\d+\.\d+", image)


@pytest.mark.parametrize("name", SERVICES)
def test_every_container_has_an_init_that_passes_signals_on(name: str) -> None:
    assert SERVICES[name]["init"] is True


@pytest.mark.parametrize("name", SERVICES)
def test_every_file_that_is_mounted_exists_and_every_volume_is_declared(name: str) -> None:
    for source, _, _ in mounts(name):
        if source.startswith("."):
            assert source in MADE_BY_THE_USER or list((DEPLOY / source).iterdir()), source
        else:
            assert source in COMPOSE["volumes"]


def test_every_volume_has_one_container() -> None:
    used = [source for name in SERVICES for source, _, _ in mounts(name) if not source.startswith(".")]

    assert sorted(used) == sorted(COMPOSE["volumes"])


@pytest.mark.parametrize("name", OURS)
def test_every_command_parses(name: str) -> None:
    assert known_commands.check(" ".join(["rec2pm", *SERVICES[name]["command"]])) == 1


@pytest.mark.parametrize("name", OURS)
def test_every_setting_exists_and_is_accepted(name: str) -> None:
    settings = Settings.from_environ(SERVICES[name]["environment"])

    assert settings.bootstrap_servers == "kafka:9092"
    assert settings.worker == (name if name in WORKERS else None), "a name of its own, that stays"


@pytest.mark.parametrize("name", OURS)
def test_a_process_may_do_no_more_than_it_must_and_writes_only_into_its_volumes(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["tmpfs"] == ["/tmp"]

    state, log, models = (f"/var/lib/rec2pm/{each}" for each in ("state", "log", "models"))
    writes = {"view": {state}, "trainer": {log, models}, **{each: {state} for each in WORKERS}}
    assert {target for _, target, read_only in mounts(name) if not read_only} == writes.get(name, set())
    # A new volume has the owner that its folder has in the image.
    (owned,) = re.findall(r"install -d -o rec2pm -g rec2pm (.+)$", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE)
    assert writes.get(name, set()) <= set(owned.split())


@pytest.mark.parametrize("name", SERVICES)
def test_what_is_published_is_for_this_machine_alone(name: str) -> None:
    assert all(port.startswith("127.0.0.1:") for port in SERVICES[name].get("ports", []))


def test_the_health_check_of_kafka_starts_no_java() -> None:
    command = SERVICES["kafka"]["healthcheck"]["test"]
    assert command[0] == "CMD", "no shell around it"
    assert not re.search(r"\.sh|java|/opt/kafka", " ".join(command))


@pytest.mark.parametrize(("names", "address"), [(WORKERS, "127.0.0.1:9464/readyz"), (["view"], "127.0.0.1:6066/ready")])
def test_a_process_that_answers_http_is_asked_whether_it_is_ready(names: list[str], address: str) -> None:
    for name in names:
        command = SERVICES[name]["healthcheck"]["test"]
        assert command[:3] == ["CMD", "python", "-c"], "the image has no curl"
        compile(command[3], name, "exec")
        assert f"'http://{address}'" in command[3]


def test_prometheus_scrapes_every_worker() -> None:
    ((source, target, _),) = [each for each in mounts("prometheus") if each[0].startswith(".")]
    (config,) = re.findall(r"--config.file=(\S+)", " ".join(SERVICES["prometheus"]["command"]))
    assert Path(config).parent == Path(target)
    scraped = loaded(source, Path(config).name)

    port = Settings.from_environ({"REC2PM_METRICS_LISTEN": "0.0.0.0:9464"}).metrics_listen.rpartition(":")[2]
    (job,) = scraped["scrape_configs"]
    assert job["static_configs"] == [{"targets": [f"{name}:{port}" for name in WORKERS]}]
    assert scraped["rule_files"] == ["alerts.yaml"]


def test_grafana_finds_prometheus_and_the_dashboards() -> None:
    targets = {target: source for source, target, _ in mounts("grafana")}
    (source,) = loaded(targets["/etc/grafana/provisioning"], "datasources", "prometheus.yaml")["datasources"]
    (provider,) = loaded(targets["/etc/grafana/provisioning"], "dashboards", "rec2pm.yaml")["providers"]

    assert source["url"] == "http://prometheus:9090"
    assert "127.0.0.1:9090:9090" in SERVICES["prometheus"]["ports"]
    assert targets[provider["options"]["path"]] == "./grafana"
