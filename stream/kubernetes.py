"""Variables that Kubernetes puts into every container for each Service of the namespace. They are no settings of ours.

A Service called `rec2pm-kafka` brings `REC2PM_KAFKA_SERVICE_HOST=10.0.0.1`, `REC2PM_KAFKA_PORT=tcp://10.0.0.1:9092`
and more. They are recognised by the form of name and value together, whatever the Service is called, so that a mistake
in a setting is still reported.
"""

import re
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit

_PROTOCOLS: Final = ("tcp", "udp", "sctp")
_OF_A_PORT: Final = r"_PORT_\d{1,5}_(?:TCP|UDP|SCTP)"


def is_of_a_service(variable: str, value: str) -> bool:
    """Whether Kubernetes could have put this variable there for a Service."""
    return any(re.search(f"{ending}$", variable) and fits(value) for ending, fits in _FORMS)


def _is_address(value: str) -> bool:
    try:
        ip_address(value)
    except ValueError:
        return False
    return True


def _is_port(value: str) -> bool:
    return re.fullmatch(r"[1-9]\d{0,4}", value) is not None and int(value) <= 65_535


def _is_url(value: str) -> bool:
    """Whether it is PROTOCOL://ADDRESS:PORT."""
    try:
        parts = urlsplit(value)
        return (
            parts.scheme in _PROTOCOLS
            and _is_address(parts.hostname or "")
            and parts.port is not None
            and value == f"{parts.scheme}://{parts.netloc}"
        )
    except ValueError:
        return False


def _is_protocol(value: str) -> bool:
    return value in _PROTOCOLS


_FORMS: Final = (
    ("_SERVICE_HOST", _is_address),
    # The name of a port has small letters, digits and `-` in the Service; here capitals and `_`.
    (r"_SERVICE_PORT(?:_[A-Z0-9_]+)?", _is_port),
    ("_PORT", _is_url),
    (_OF_A_PORT, _is_url),
    (f"{_OF_A_PORT}_PROTO", _is_protocol),
    (f"{_OF_A_PORT}_PORT", _is_port),
    (f"{_OF_A_PORT}_ADDR", _is_address),
)
