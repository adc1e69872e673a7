"""Versions that a real MLflow knows: its server, on SQLite, in a process of its own."""

import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec
import pytest
from click.testing import CliRunner, Result

from model.errors import ModelNotFound
from model.version.registry import ModelVersion, Registry
from model.version.runtime import Runtime
from stream.commands.broker import Broker
from stream.commands.main import main
from stream.errors import MlflowUnusable
from stream.kafka.models_topic import read_models
from stream.promotion import mlflow
from stream.promotion.checks.files import fetched
from stream.promotion.places import places
from tests.docs import pages
from tests.integration.test_worker import Application, create_topics
from tests.model import tiny
from tests.stream.promotion.promotions import promotion

pytestmark = pytest.mark.usefixtures("quick_gate")

STARTS_WITHIN_S = 120
"""It imports much, and makes a database."""


@dataclass
class Server:
    """A server of MLflow, its artifacts behind it."""

    url: str
    artifacts: Path

    def client(self) -> Any:
        from mlflow import MlflowClient

        return MlflowClient(self.url)

    def register(self, folder: Path | str, name: str) -> str:
        """Do what docs/gate.md shows. Returns the number of the version in MLflow."""
        return str(_registered(folder, name))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("mlflow")
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url, log = f"http://127.0.0.1:{port}", folder / "log"
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += [
        "--backend-store-uri",
        f"sqlite:///{folder}/mlflow.db",
        "--artifacts-destination",
        f"{folder}/artifacts",
    ]
    environ = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"}
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=folder, env=environ, stdout=output, stderr=output, start_new_session=True
        )
    try:
        deadline = time.monotonic() + STARTS_WITHIN_S
        while not _answers(url):
            assert process.poll() is None, log.read_text()[-3000:]
            assert time.monotonic() < deadline, log.read_text()[-3000:]
            time.sleep(0.1)
        yield Server(url, folder / "artifacts")
    finally:
        os.killpg(process.pid, 15)
        process.wait(30)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=5):
            return True
    except (urllib.error.URLError, OSError):
        return False


def _registered(folder: Path | str, name: str) -> object:
    """Run the lines of docs/gate.md that register a version, with another folder and name."""
    place = "a bucket" if "://" in str(folder) else "a folder"
    (block,) = [
        each for each in pages.page("docs/gate.md").blocks if each.language == "python" and place in each.lines[0]
    ]
    code = "\n".join(block.lines)
    shown = {"var/models/films/3": str(folder), "s3://shop/models/films/3": str(folder), '"films"': repr(name)}
    for old, new in shown.items():
        code = code.replace(old, new)
    found: dict[str, Any] = {}
    exec(code, found)
    return found["registered"].version


@pytest.fixture
def here(server: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    """MLflow's variables name the server, as an operator sets them."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url)
    monkeypatch.delenv("MLFLOW_REGISTRY_URI", raising=False)
    return server


def _trained(folder: Path, name: str, seed: int = 0) -> ModelVersion:
    return tiny.add(folder, name, seed)


def test_a_version_behind_mlflow_is_copied_promoted_and_shown_there(
    here: Server, broker: Broker, tmp_path: Path
) -> None:
    application = Application(broker.bootstrap, tmp_path)
    create_topics(application)
    version = _trained(tmp_path / "elsewhere", "plays")
    number = here.register(Path(version.uri), "our-plays")
    here.client().set_registered_model_alias("our-plays", "challenger", number)

    def promote(*more: str) -> Result:
        environ = application.environ({})
        return CliRunner().invoke(main, ["models", "promote", "models:/our-plays@challenger", *more], env=environ)

    done = promote()
    assert done.exit_code == 0, done.output
    assert "promoted plays@1 as champion, the first" in done.stdout
    record = read_models({"bootstrap.servers": broker.bootstrap}, application.name).aliases["champion"]
    copied = Registry(application.models).resolve("plays@1")
    assert (record.version, record.sha256, record.uri) == ("plays@1", version.digest(), copied.uri)
    shown = here.client().get_model_version_by_alias("our-plays", "champion")
    assert (shown.version, shown.tags[mlflow.TAG]) == (number, record.id)

    # What a worker does with the record needs nothing of MLflow.
    found = fetched(places(record, Registry(tmp_path / "of a worker"))[0], tmp_path / "fetched")
    assert Runtime.load(found.folder, record.sha256).reference == "plays@1"

    again = promote()
    assert again.exit_code == 0, again.output
    assert "it is the champion itself" in again.stdout

    shutil.rmtree(application.models)
    _trained(application.models, "plays", seed=1)
    clash = promote()
    assert clash.exit_code == 1
    assert (
        f"has another plays@1, with sha256 {Registry(application.models).resolve('plays@1').digest()}" in clash.stderr
    )


def test_a_place_that_workers_can_read_is_promoted_as_it_is(here: Server, tmp_path: Path) -> None:
    version = _trained(tmp_path / "models", "songs")
    place = f"memory://{tmp_path.name}/songs/1"
    fsspec.filesystem("memory").put(f"{version.uri}/", place.removeprefix("memory:/"), recursive=True)
    number = here.register(place, "songs")
    for reference in (f"models:/songs/{number}", "models:/songs@newest"):
        here.client().set_registered_model_alias("songs", "newest", number)
        found = mlflow.resolved(reference, Registry(tmp_path / "registry"))
        assert (found.version.reference, found.version.uri) == ("songs@1", place)
        assert found.version.sha256 == version.digest()
    assert not (tmp_path / "registry").exists()


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        ("models:/nothing@champion", "has no models:/nothing@champion: "),
        ("models:/clips@nothing", "has no models:/clips@nothing: "),
        ("models:/clips/77", "has no models:/clips/77: "),
        ("models:/clips", "'models:/clips' is neither models:/NAME@ALIAS nor models:/NAME/VERSION"),
        ("models:/clips@", "is neither models:/NAME@ALIAS"),
        ("models:/clips/newest", "is neither models:/NAME@ALIAS"),
    ],
)
def test_what_mlflow_does_not_have_is_said(here: Server, tmp_path: Path, reference: str, words: str) -> None:
    with pytest.raises(ModelNotFound, match=re.escape(words)):
        mlflow.resolved(reference, Registry(tmp_path))


def test_an_alias_whose_artifact_is_gone_is_said(here: Server, tmp_path: Path) -> None:
    """https://github.com/mlflow/mlflow/issues/25562"""
    number = here.register(Path(_trained(tmp_path / "models", "gone").uri), "gone")
    shutil.rmtree(here.artifacts)
    with pytest.raises(MlflowUnusable, match=r"models:/gone/1 is known to MLflow, but its artifact is not at runs:/"):
        mlflow.resolved(f"models:/gone/{number}", Registry(tmp_path / "registry"))
    here.register("memory://nowhere/gone/1", "gone")
    with pytest.raises(MlflowUnusable, match=r"but memory://nowhere/gone/1 has no manifest.json: the artifact is gone"):
        mlflow.resolved("models:/gone/2", Registry(tmp_path / "registry"))
    assert not (tmp_path / "registry").exists()


def test_an_artifact_that_is_no_version_is_said(here: Server, tmp_path: Path) -> None:
    (tmp_path / "sklearn").mkdir()
    (tmp_path / "sklearn" / "MLmodel").write_text("flavors: {}")
    number = here.register(tmp_path / "sklearn", "sklearn")
    with pytest.raises(MlflowUnusable, match="or is no version of rec2pm"):
        mlflow.resolved(f"models:/sklearn/{number}", Registry(tmp_path / "registry"))


def test_a_server_that_is_away_is_said_before_and_after_a_promotion(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(MlflowUnusable, match=r"MLflow at http://127\.0\.0\.1:1 does not answer: "):
        mlflow.resolved("models:/plays@challenger", Registry(tmp_path))
    origin = mlflow.Resolved("plays", "1", ModelVersion("plays", 1, str(tmp_path)))
    (warning,) = mlflow.mirrored(origin, promotion("plays@1"))
    assert "MLflow still shows its alias champion as before: " in warning


def test_without_the_client_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stream.promotion.mlflow.find_spec", lambda name: None)
    with pytest.raises(
        MlflowUnusable, match=r"models:/plays@challenger needs MLflow's client: pip install '\.\[mlflow\]'"
    ):
        mlflow.resolved("models:/plays@challenger", Registry(tmp_path))
