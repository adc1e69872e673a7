"""Versions that MLflow's registry knows: `models:/NAME@ALIAS` and `models:/NAME/VERSION`.

A reference is resolved once, by the command that promotes. What workers get is a place that they can read, and a
SHA-256: they need neither MLflow nor its credentials. Afterwards the command sets the alias and a tag in MLflow, too.

MLFLOW_TRACKING_URI and MLFLOW_REGISTRY_URI say where MLflow is. The extra `mlflow` installs its client.
"""

import hashlib
import os
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from model.errors import ModelNotFound, how_to_install
from model.version import manifest as manifests
from model.version import storage
from model.version.manifest import MANIFEST
from model.version.registry import ModelVersion, Registry
from stream.errors import MlflowUnusable
from stream.promotion.record import Promotion

TAG: Final = "rec2pm.promotion"
"""On the version in MLflow: the id of the newest promotion."""
_SCHEME: Final = "models:/"
_REFERENCE: Final = re.compile(r"models:/+(?P<name>[^/@]+)(?:@(?P<alias>[^/@]+)|/(?P<version>[0-9]+))")
_ONLY_MLFLOW: Final = ("mlflow-artifacts", "runs", "models", "dbfs", "http", "https")
"""Schemes of places that only MLflow's client can read."""
_QUIET: Final = {
    # The default is to try for minutes. An operator waits for the answer.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}


@dataclass(frozen=True, slots=True)
class Resolved:
    """A version of MLflow, and where workers can read it."""

    name: str
    number: str
    version: ModelVersion


def is_reference(text: str) -> bool:
    return text.startswith(_SCHEME)


def resolved(reference: str, registry: Registry) -> Resolved:
    """Ask MLflow for a version. What only MLflow's client can read is copied into the registry.

    Raises:
        ModelNotFound: MLflow has no such version, or it is not one of rec2pm.
        MlflowUnusable: the client is not installed, MLflow does not answer, its artifact is gone, or the registry has
            another version of the same name and number.
    """
    found = _REFERENCE.fullmatch(reference)
    if found is None:
        raise ModelNotFound(f"{reference!r} is neither models:/NAME@ALIAS nor models:/NAME/VERSION")
    if find_spec("mlflow") is None:
        raise MlflowUnusable(f"{reference} needs MLflow's client: {how_to_install('mlflow')}")
    client = _client()
    version = _asked(client, reference, found["name"], found["alias"], found["version"])
    place = _place(client, reference, version)
    if place.partition(":")[0] in _ONLY_MLFLOW and ":" in place:
        return Resolved(version.name, str(version.version), _copied(reference, place, registry))
    return Resolved(version.name, str(version.version), _read(reference, place))


def mirrored(origin: Resolved, promotion: Promotion) -> Sequence[str]:
    """Set the alias and a tag in MLflow. Returns what did not work, in words: the promotion stands all the same."""
    try:
        client = _client()
        client.set_registered_model_alias(origin.name, promotion.alias, origin.number)
        client.set_model_version_tag(origin.name, origin.number, TAG, promotion.id)
    except Exception as error:
        return [
            f"MLflow still shows its alias {promotion.alias} as before: {_words(error)}. The promotion stands: workers do not ask MLflow"
        ]
    return []


def _client() -> Any:
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    from mlflow import MlflowClient

    return MlflowClient()


def _asked(client: Any, reference: str, name: str, alias: str | None, number: str | None) -> Any:
    from mlflow.exceptions import MlflowException

    try:
        version = (
            client.get_model_version(name, number) if alias is None else client.get_model_version_by_alias(name, alias)
        )
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise ModelNotFound(f"MLflow at {_where()} has no {reference}: {_words(error)}") from error
        raise MlflowUnusable(f"MLflow at {_where()} does not answer: {_words(error)}") from error
    if version.status != "READY":
        raise MlflowUnusable(f"{reference} is not ready in MLflow: its status is {version.status}")
    return version


def _place(client: Any, reference: str, version: Any) -> str:
    """Where the artifact is: a folder, or a URL."""
    from mlflow.exceptions import MlflowException

    try:
        place = str(client.get_model_version_download_uri(version.name, version.version))
    except MlflowException as error:
        raise MlflowUnusable(f"MLflow does not say where {reference} is: {_words(error)}") from error
    return place.removeprefix("file://") if place.startswith("file:///") else place


def _read(reference: str, place: str) -> ModelVersion:
    """The version in a folder or behind a URL of fsspec."""
    try:
        data = storage.read(storage.join(place, MANIFEST))
    except FileNotFoundError:
        raise _not_there(reference, place) from None
    manifest = manifests.decode(data, f"{reference} ({place})")
    return ModelVersion(manifest.name, int(manifest.version), place, hashlib.sha256(data).hexdigest())


def _copied(reference: str, place: str, registry: Registry) -> ModelVersion:
    from mlflow.artifacts import download_artifacts
    from mlflow.exceptions import MlflowException

    with tempfile.TemporaryDirectory(prefix="rec2pm-mlflow-") as folder:
        try:
            local = Path(download_artifacts(artifact_uri=place, dst_path=folder))
        except (MlflowException, OSError) as error:
            raise MlflowUnusable(
                f"{reference} is known to MLflow, but its artifact is not at {place}: {_words(error)}"
            ) from error
        return registry.take(_read(reference, str(local)))


def _not_there(reference: str, place: str) -> MlflowUnusable:
    return MlflowUnusable(
        f"{reference} is known to MLflow, but {place} has no {MANIFEST}: the artifact is gone, or is no version of rec2pm "
        "(docs/gate.md says how one gets into MLflow)"
    )


def _where() -> str:
    import mlflow

    return str(mlflow.get_registry_uri())


def _words(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
