"""The Helm chart: rendered for a table of values, and every object held against its schema and against the program."""

import re
import tomllib
from collections.abc import Iterator
from functools import cache
from typing import Any, Final

import jsonschema
import pytest
import yaml

from stream.settings import Settings
from tests.deploy.custom_resources import SCHEMAS
from tests.docs import known_commands
from tests.processes import ROOT

helm = pytest.importorskip("helm_python", reason="helm-python-sdk is not installed: it has no wheel for this machine")
kubernetes_validate = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")

CHART: Final = ROOT / "deploy" / "chart" / "rec2pm"
METADATA: Final = yaml.safe_load((CHART / "Chart.yaml").read_text())
DOCKERFILE: Final = (ROOT / "deploy" / "Dockerfile").read_text()
ALERTS: Final = ROOT / "deploy" / "prometheus" / "alerts.yaml"
DASHBOARD: Final = ROOT / "deploy" / "grafana" / "rec2pm.json"
Object = dict[str, Any]

LEAST: Final[Object] = {
    "settings": {"REC2PM_BOOTSTRAP_SERVERS": "kafka:9092"},
    "models": {"existingClaim": "models"},
}
WHERE: Final[Object] = {
    "podAnnotations": {"team": "shop"},
    "podLabels": {"cost": "shop"},
    "nodeSelector": {"disk": "ssd"},
    "tolerations": [{"key": "shop", "operator": "Exists", "effect": "NoSchedule"}],
    "affinity": {
        "podAntiAffinity": {
            "preferredDuringSchedulingIgnoredDuringExecution": [
                {"weight": 1, "podAffinityTerm": {"topologyKey": "kubernetes.io/hostname", "labelSelector": {}}}
            ]
        }
    },
    "topologySpreadConstraints": [
        {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway", "labelSelector": {}}
    ],
    "priorityClassName": "high",
}
EVERYTHING: Final[Object] = {
    "image": {"repository": "registry.example/rec2pm", "tag": "1.2.3", "pullSecrets": [{"name": "registry"}]},
    "settings": {
        "REC2PM_BOOTSTRAP_SERVERS": "kafka-1:9092,kafka-2:9092",
        "REC2PM_APP": "shop",
        "REC2PM_INTERACTIONS_TOPIC": "clicks",
        "REC2PM_TOP_K": 20,
        "REC2PM_CACHE_USERS": 1_000_000,
        "REC2PM_MAX_REFUSED": 0.25,
        "REC2PM_KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
        "REC2PM_KAFKA_SASL_USERNAME": "nobody",
    },
    "extraEnv": [{"name": "MALLOC_TRIM_THRESHOLD_", "value": "1073741824"}],
    "extraEnvFrom": [{"secretRef": {"name": "bucket"}}],
    "models": {"url": "s3://shop/models"},
    "serviceAccount": {"annotations": {"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/shop"}},
    "topics": {"create": True, "partitions": 24},
    "worker": {
        "settings": {"REC2PM_KAFKA_SASL_USERNAME": "shop-worker"},
        "secretSettings": {"REC2PM_KAFKA_SASL_PASSWORD": {"name": "shop-worker", "key": "password"}},
        "secretFiles": [{"secretName": "kafka-ca", "mountPath": "/etc/rec2pm/kafka"}],
        "state": {"storageClassName": "fast"},
        **WHERE,
    },
    "autoscaling": {"enabled": True, "authenticationRef": "keda-kafka", "metadata": {"tls": "enable"}},
    "monitoring": {
        "podMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
        "prometheusRule": {"enabled": True, "labels": {"release": "prometheus"}},
        "dashboard": {"enabled": DASHBOARD.exists()},
    },
    "view": {"enabled": True, "replicas": 2, **WHERE},
    "trainer": {"enabled": True, "log": {"storageClassName": "large"}, **WHERE},
    "reset": {"onUninstall": True},
}
TABLE: Final[dict[str, Object]] = {
    "least": LEAST,
    "everything": EVERYTHING,
    "everything in folders": {**EVERYTHING, "models": {"url": "", "existingClaim": "models"}},
    "Deployment": {**LEAST, "worker": {"kind": "Deployment"}},
    "StatefulSet without claims": {**LEAST, "worker": {"state": {"persistent": False}}},
    "a secret from elsewhere": {
        **LEAST,
        "secretSettings": {"REC2PM_KAFKA_SASL_PASSWORD": {"name": "vault", "key": "kafka"}},
        "secretFiles": [{"secretName": "vault-ca", "mountPath": "/etc/rec2pm/kafka"}],
        "serviceAccount": {"create": False, "name": "shop"},
    },
    "few": {**LEAST, "worker": {"replicas": 1, "podDisruptionBudget": {"enabled": False}, "resources": {}}},
}
KUBERNETES: Final = ("1.27", kubernetes_validate.latest_version())
"""The oldest release that the chart asks for, and the newest whose schemas are installed."""


@cache
def rendered(values: str, release: str = "shop") -> tuple[Object, ...]:
    """Every object of a release, hooks included."""
    files = installed(TABLE[values], release)
    texts = [text for path, text in files.items() if not path.endswith("NOTES.txt")]
    return tuple(each for text in texts for each in yaml.safe_load_all(text) if each)


def installed(values: Object, release: str) -> dict[str, str]:
    """Template → what it renders to. Raises HelmError where Helm would refuse the values."""
    with helm.Chart.load(CHART) as chart:
        chart.validate_schema(values)
        files: dict[str, str] = chart.render(values, name=release, namespace="recommendations")
    return files


def of_kind(values: str, *kinds: str) -> list[Object]:
    return [each for each in rendered(values) if each["kind"] in kinds]


def named(values: str, kind: str, ending: str) -> Object:
    (found,) = [each for each in of_kind(values, kind) if each["metadata"]["name"].endswith(ending)]
    return found


def pods(values: str) -> Iterator[tuple[str, Object, Object]]:
    """Component, labels and specification of every pod that the objects make."""
    for each in of_kind(values, "Deployment", "StatefulSet", "Job", "Pod"):
        template = each if each["kind"] == "Pod" else each["spec"]["template"]
        labels = template["metadata"]["labels"]
        yield labels["app.kubernetes.io/component"], labels, template["spec"]


def pod(values: str, component: str) -> Object:
    (found,) = [spec for name, _, spec in pods(values) if name == component]
    return found


def environ(values: str, component: str) -> dict[str, str]:
    """The variables of a container: references are followed to made-up values."""
    found = {}
    for each in pod(values, component)["containers"][0]["env"]:
        assert each["name"] not in found, "twice"
        found[each["name"]] = each.get("value", "shop-rec2pm-worker-0")
    return found


@pytest.mark.parametrize("version", KUBERNETES)
@pytest.mark.parametrize("values", TABLE)
def test_every_object_is_what_kubernetes_takes(values: str, version: str) -> None:
    names = set()
    for each in rendered(values):
        schema = SCHEMAS.get((each["apiVersion"], each["kind"]))
        if schema is None:
            kubernetes_validate.validate(each, version, strict=True)
        else:
            jsonschema.validate(each, schema)
        names.add((each["kind"], each["metadata"]["name"]))
    assert len(names) == len(rendered(values)), "two objects have one name"


@pytest.mark.parametrize("values", TABLE)
def test_the_linter_finds_nothing(values: str) -> None:
    found = helm.lint(CHART, TABLE[values], strict=True)

    assert not found["errors"]
    assert [each["error"] for each in found["messages"]] == ["icon is recommended"]


def test_everything_has_every_object_and_the_least_has_none_that_needs_an_operator() -> None:
    assert {each["kind"] for each in rendered("least")} == {
        *("ServiceAccount", "StatefulSet", "Service", "PodDisruptionBudget", "Pod")
    }
    assert {each["kind"] for each in rendered("everything")} >= {
        *("ServiceAccount", "StatefulSet", "Service", "PodDisruptionBudget", "Pod", "Deployment", "Job"),
        *("PersistentVolumeClaim", "ScaledObject", "PodMonitor", "PrometheusRule"),
    }
    assert {component for component, _, _ in pods("everything")} == {
        *("worker", "view", "trainer", "topics", "reset", "check")
    }


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, "settings.REC2PM_BOOTSTRAP_SERVERS is missing"),
        ({"settings": LEAST["settings"]}, "expected one of models.url (a bucket) and models.existingClaim"),
        ({**LEAST, "models": {"url": "s3://a/b", "existingClaim": "c"}}, "expected one of models.url"),
        ({**LEAST, "models": {"url": "/models"}}, "/models/url"),
        ({**LEAST, "worker": {"replica": 3}}, "additional properties 'replica' not allowed"),
        ({**LEAST, "worker": {"kind": "DaemonSet"}}, "/worker/kind"),
        ({**LEAST, "worker": {"settings": {"REC2PM_WORKER": "a"}}}, "REC2PM_WORKER is set by the chart"),
        ({**LEAST, "settings": {**LEAST["settings"], "REC2PM_MODELS": "a"}}, "REC2PM_MODELS is set by the chart"),
        ({**LEAST, "settings": {**LEAST["settings"], "PATH": "/bin"}}, "PATH"),
        ({**LEAST, "secretSettings": {"REC2PM_KAFKA_SASL_PASSWORD": "hunter2"}}, "got string, want object"),
        ({**LEAST, "trainer": {"args": "--promote"}}, "got string, want array"),
    ],
)
def test_wrong_values_are_refused_with_what_is_wrong(values: Object, said: str) -> None:
    with pytest.raises(helm.HelmError) as refused:
        installed(values, "shop")

    assert said in str(refused.value)


@pytest.mark.parametrize("values", TABLE)
def test_what_a_container_runs_is_a_command_with_its_options(values: str) -> None:
    for component, _, spec in pods(values):
        (container,) = spec["containers"]
        assert "command" not in container, "the image's entry point gets the signals itself"
        assert known_commands.check(" ".join(["rec2pm", *container["args"]]).replace("$(POD_NAME)", component)) == 1


@pytest.mark.parametrize("values", TABLE)
def test_each_process_accepts_its_settings(values: str) -> None:
    for component, _, _ in pods(values):
        Settings.from_environ(environ(values, component))


def test_settings_arrive_as_they_were_given() -> None:
    settings = Settings.from_environ(environ("everything", "worker"))

    assert (settings.app, settings.top_k, settings.cache_users, settings.max_refused) == ("shop", 20, 1_000_000, 0.25)
    assert settings.models == "s3://shop/models"
    assert settings.kafka["sasl.username"] == "shop-worker", "what is said of workers comes before what is said of all"
    assert Settings.from_environ(environ("everything", "view")).kafka["sasl.username"] == "nobody"


def test_a_worker_of_a_statefulset_has_the_name_of_its_pod_and_one_of_a_deployment_has_none() -> None:
    (name,) = [each for each in pod("least", "worker")["containers"][0]["env"] if each["name"] == "REC2PM_WORKER"]

    assert name["valueFrom"] == {"fieldRef": {"fieldPath": "metadata.name"}}
    assert "REC2PM_WORKER" not in environ("Deployment", "worker"), "a pod of a Deployment has another name each time"


@pytest.mark.parametrize("values", TABLE)
def test_no_container_may_do_more_than_it_must(values: str) -> None:
    (user,) = set(re.findall(r"^USER (\d+):\d+$", DOCKERFILE, re.MULTILINE))
    for component, _, spec in pods(values):
        assert spec["automountServiceAccountToken"] is False, component
        assert spec["enableServiceLinks"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert {spec["securityContext"][each] for each in ("runAsUser", "runAsGroup", "fsGroup")} == {int(user)}
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in spec["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }


@pytest.mark.parametrize("values", TABLE)
def test_every_folder_that_a_process_writes_to_is_a_volume(values: str) -> None:
    writes = {"worker": {"/tmp", "/var/lib/rec2pm/state"}, "view": {"/tmp", "/var/lib/rec2pm/state"}}
    writes["trainer"] = {"/tmp", "/var/lib/rec2pm/log"} | ({"/var/lib/rec2pm/models"} if "folders" in values else set())
    for component, _, spec in pods(values):
        mounts = spec["containers"][0]["volumeMounts"]
        assert {each["mountPath"] for each in mounts if not each.get("readOnly")} == writes.get(component, {"/tmp"})
        claimed = {each["name"] for each in spec["volumes"]}
        if component == "worker":
            kind = "Deployment" if values == "Deployment" else "StatefulSet"
            claims = named(values, kind, "-worker")["spec"].get("volumeClaimTemplates", [])
            assert len(claims) == (values not in ("Deployment", "StatefulSet without claims"))
            claimed |= {each["metadata"]["name"] for each in claims}
        assert {each["name"] for each in mounts} == claimed
        variables = environ(values, component)
        if "REC2PM_STATE_DIR" in variables:
            assert variables["REC2PM_STATE_DIR"] in writes[component]


def test_workers_may_only_read_the_registry() -> None:
    (mount,) = [each for each in pod("least", "worker")["containers"][0]["volumeMounts"] if each["name"] == "models"]

    assert mount["readOnly"] is True
    assert mount["mountPath"] == environ("least", "worker")["REC2PM_MODELS"]


@pytest.mark.parametrize("values", TABLE)
def test_the_chart_makes_no_secret_and_names_those_that_are_there(values: str) -> None:
    assert not of_kind(values, "Secret")
    for component in ("worker", "check"):
        secrets = {
            each["name"]: each["valueFrom"]["secretKeyRef"]["name"]
            for each in pod(values, component)["containers"][0]["env"]
            if "secretKeyRef" in each.get("valueFrom", {})
        }
        expected = {"a secret from elsewhere": "vault"} | dict.fromkeys(
            ("everything", "everything in folders"), "shop-worker"
        )
        assert secrets == ({"REC2PM_KAFKA_SASL_PASSWORD": expected[values]} if values in expected else {})


def test_probes_ask_what_a_worker_answers_and_give_a_restore_its_time() -> None:
    container = pod("least", "worker")["containers"][0]
    port = Settings.from_environ(environ("least", "worker")).metrics_listen.rpartition(":")[2]
    startup = container["startupProbe"]

    assert [(each["name"], str(each["containerPort"])) for each in container["ports"]] == [("metrics", port)]
    assert {name: container[f"{name}Probe"]["httpGet"] for name in ("startup", "liveness", "readiness")} == {
        "startup": {"path": "/livez", "port": "metrics"},
        "liveness": {"path": "/livez", "port": "metrics"},
        "readiness": {"path": "/readyz", "port": "metrics"},
    }
    assert startup["periodSeconds"] * startup["failureThreshold"] >= 1800
    assert pod("least", "worker")["terminationGracePeriodSeconds"] > 30, "what STOPSIGNAL's comment asks for"


@pytest.mark.parametrize("values", TABLE)
def test_what_selects_pods_selects_those_of_its_part_alone(values: str) -> None:
    found = list(pods(values))
    for each in rendered(values):
        selector = each.get("spec", {}).get("selector")
        if selector is None:
            continue
        wanted = selector.get("matchLabels", selector)
        selected = [component for component, labels, _ in found if wanted.items() <= labels.items()]
        assert selected == [each["metadata"]["labels"]["app.kubernetes.io/component"]], each["metadata"]["name"]
        ports = each["spec"].get("ports", []) + each["spec"].get("podMetricsEndpoints", [])
        for port in ports:
            there = {offered["name"] for offered in pod(values, selected[0])["containers"][0]["ports"]}
            assert port.get("targetPort", port.get("port")) in there


def test_a_roll_takes_one_worker_at_a_time_and_starts_none_beside_them() -> None:
    assert named("Deployment", "Deployment", "-worker")["spec"]["strategy"]["rollingUpdate"] == {
        "maxSurge": 0,
        "maxUnavailable": 1,
    }
    assert named("least", "StatefulSet", "-worker")["spec"]["updateStrategy"] == {"type": "RollingUpdate"}
    assert named("least", "PodDisruptionBudget", "-worker")["spec"]["maxUnavailable"] == 1
    assert not of_kind("few", "PodDisruptionBudget")
    assert named("everything", "Deployment", "-trainer")["spec"]["strategy"] == {"type": "Recreate"}


def test_keda_looks_at_the_group_of_the_workers_and_wants_no_more_than_there_are_partitions() -> None:
    scaled = named("everything", "ScaledObject", "-worker")["spec"]
    settings = Settings.from_environ(environ("everything", "worker"))
    (trigger,) = scaled["triggers"]

    assert scaled["scaleTargetRef"] == {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "name": named("everything", "StatefulSet", "-worker")["metadata"]["name"],
    }
    assert scaled["maxReplicaCount"] == 24
    assert trigger["metadata"] == {
        "bootstrapServers": settings.bootstrap_servers,
        "consumerGroup": settings.app,
        "topic": settings.interactions_topic,
        "lagThreshold": "1000",
        "offsetResetPolicy": "earliest",
        "allowIdleConsumers": "false",
        "tls": "enable",
    }
    assert trigger["authenticationRef"] == {"name": "keda-kafka"}
    assert "replicas" not in named("everything", "StatefulSet", "-worker")["spec"], "KEDA decides, not an upgrade"


def test_the_rules_are_the_alerts_of_the_file() -> None:
    (rule,) = of_kind("everything", "PrometheusRule")

    assert rule["spec"] == yaml.safe_load(ALERTS.read_text())
    assert rule["metadata"]["labels"]["release"] == "prometheus"


@pytest.mark.skipif(not DASHBOARD.exists(), reason="there is no dashboard in deploy/grafana")
def test_the_dashboard_is_the_file_byte_for_byte() -> None:
    config = named("everything", "ConfigMap", "-dashboard")

    assert config["data"] == {"rec2pm.json": DASHBOARD.read_text()}
    assert config["metadata"]["labels"]["grafana_dashboard"] == "1"


def test_jobs_run_when_helm_says_and_need_nothing_that_is_not_there_yet() -> None:
    hooks = {
        job["metadata"]["name"]: job["metadata"]["annotations"]["helm.sh/hook"] for job in of_kind("everything", "Job")
    }

    assert hooks == {"shop-rec2pm-topics": "pre-install,pre-upgrade", "shop-rec2pm-reset": "post-delete"}
    for job in of_kind("everything", "Job"):
        spec = job["spec"]["template"]["spec"]
        assert "serviceAccountName" not in spec, "it is made later, or gone already"
        assert not [each for each in spec["volumes"] if "persistentVolumeClaim" in each]
    assert not of_kind("least", "Job"), "nothing is created in Kafka, or removed from it, unless it is asked for"


def test_the_version_of_the_program_is_that_of_the_chart_and_the_image() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]

    assert METADATA["appVersion"] == version
    assert pod("least", "worker")["containers"][0]["image"] == f"rec2pm:{version}"
    assert pod("everything", "worker")["containers"][0]["image"] == "registry.example/rec2pm:1.2.3"


@pytest.mark.parametrize("release", ["r", "rec2pm", "a-release-with-a-name-that-is-as-long-as-helm-allows-53"])
def test_names_are_short_enough_for_what_kubernetes_appends(release: str) -> None:
    """A pod's name is a label of a StatefulSet's pods, of at most 63 characters; a hash or an ordinal is appended."""
    names = [each["metadata"]["name"] for each in rendered("everything", release)]

    assert all(len(name) <= 52 for name in names)
    assert all(re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", name) for name in names)
