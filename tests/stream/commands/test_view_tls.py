"""What the view makes of librdkafka's options for TLS."""

import ssl
from pathlib import Path

import pytest

from stream.commands.view.faust_app import _tls
from stream.errors import SettingsInvalid


@pytest.mark.parametrize("place", [None, "probe", "folder"])
def test_authorities_may_be_the_systems_or_a_folder(tmp_path: Path, place: str | None) -> None:
    where = {"folder": str(tmp_path)}.get(place or "", place)
    made = _tls({} if where is None else {"ssl.ca.location": where})

    assert made.verify_mode is ssl.CERT_REQUIRED
    assert made.check_hostname


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"ssl.ca.location": "/no/such/file"}, "REC2PM_KAFKA_SSL_CA_LOCATION"),
        ({"ssl.certificate.location": "/no/such/file"}, "REC2PM_KAFKA_SSL_CERTIFICATE_LOCATION"),
        ({"ssl.ca.pem": "x"}, "the view does not support ssl.ca.pem"),
        ({"enable.ssl.certificate.verification": "false"}, "does not support enable.ssl.certificate.verification"),
    ],
)
def test_what_the_view_cannot_follow_is_refused_by_name(options: dict[str, str], said: str) -> None:
    with pytest.raises(SettingsInvalid, match=said):
        _tls(options)
