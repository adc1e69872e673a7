"""Fixtures: a bucket on a server in this process."""

import logging
from collections.abc import Iterator
from uuid import uuid4

import fsspec
import pytest

KEYS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}
BUCKET = "shop"


@pytest.fixture(scope="session")
def s3() -> Iterator[dict[str, str]]:
    """The environment with which an S3 client reaches a server that has an empty bucket."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    environment = {**KEYS, "AWS_ENDPOINT_URL": f"http://{host}:{port}"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        if not fsspec.filesystem("s3").exists(BUCKET):  # the servers of a process have the same content
            fsspec.filesystem("s3").mkdir(BUCKET)
        fsspec.filesystem("s3").clear_instance_cache()
    yield environment
    server.stop()


@pytest.fixture
def bucket(s3: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of an empty registry in a bucket."""
    for name, value in s3.items():
        monkeypatch.setenv(name, value)
    fsspec.filesystem("s3").clear_instance_cache()  # another test may have had another endpoint
    yield f"s3://{BUCKET}/{uuid4().hex}/models"
    fsspec.filesystem("s3").clear_instance_cache()
