"""Variables of Kubernetes Services, by every name that a Service can have."""

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.errors import SettingsInvalid
from stream.settings import Settings, variable_of

LABELS = st.from_regex(r"[a-z]([-a-z0-9]{0,20}[a-z0-9])?", fullmatch=True)
"""Names of Services and of their ports (RFC 1035)."""
SETTINGS = [name.replace("_", "-") for name in Settings.model_fields]
SERVICES = st.one_of(
    st.just("rec2pm"), st.sampled_from(["worker", "kafka", "view", *SETTINGS]).map("rec2pm-{}".format), LABELS
)
ADDRESSES = st.one_of(st.ip_addresses(v=4).map(str), st.ip_addresses(v=6).map(str))


@st.composite
def services(draw: st.DrawFn) -> dict[str, str]:
    """The variables of one Service, as kubelet makes them (pkg/kubelet/envvars)."""
    prefix = draw(SERVICES).upper().replace("-", "_")
    if not prefix.startswith("REC2PM"):
        prefix = f"REC2PM_{prefix}"
    address = draw(ADDRESSES)
    ports = draw(
        st.lists(
            st.tuples(st.integers(1, 65_535), st.sampled_from(["tcp", "udp", "sctp"]), st.none() | LABELS),
            min_size=1,
            max_size=3,
        )
    )
    host = f"[{address}]" if ":" in address else address
    made = {
        f"{prefix}_SERVICE_HOST": address,
        f"{prefix}_SERVICE_PORT": str(ports[0][0]),
        f"{prefix}_PORT": f"{ports[0][1]}://{host}:{ports[0][0]}",
    }
    for number, protocol, name in ports:
        if name is not None:
            made[f"{prefix}_SERVICE_PORT_{name.upper().replace('-', '_')}"] = str(number)
        of_port = f"{prefix}_PORT_{number}_{protocol.upper()}"
        made |= {
            of_port: f"{protocol}://{host}:{number}",
            f"{of_port}_PROTO": protocol,
            f"{of_port}_PORT": str(number),
            f"{of_port}_ADDR": address,
        }
    return made


@given(services())
def test_no_service_of_the_namespace_changes_or_breaks_the_settings(made: Mapping[str, str]) -> None:
    given_too = {"REC2PM_APP": "shop", "REC2PM_KAFKA_CLIENT_RACK": "a"}
    assert Settings.from_environ(made | given_too) == Settings.from_environ(given_too)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("REC2PM_PORT", "9464"),
        ("REC2PM_PORT", "http://10.0.0.1:80"),
        ("REC2PM_PORT", "tcp://kafka:9092"),
        ("REC2PM_PORT", "tcp://10.0.0.1:9092/x"),
        ("REC2PM_SERVICE_HOST", "kafka"),
        ("REC2PM_SERVICE_PORT", "tcp"),
        ("REC2PM_SERVICE_PORT", "99999"),
        ("REC2PM_SERVICE_NAME", "10.0.0.1"),
        ("REC2PM_PORT_9092_TCP_ADDR", "localhost"),
        ("REC2PM_PORT_9092_TCP_PROTO", "http"),
        ("REC2PM_MODEL_HOST", "10.0.0.1"),
        ("REC2PM_TOPK", "5"),
    ],
)
def test_a_name_or_a_value_of_another_form_is_still_a_mistake(variable: str, value: str) -> None:
    with pytest.raises(SettingsInvalid, match=f"{variable} is not a setting"):
        Settings.from_environ({variable: value})


def test_a_setting_is_no_variable_of_a_service() -> None:
    """A field that ends like one would not be read where its value has the form of an address or a port."""
    for name in Settings.model_fields:
        assert not variable_of(name).endswith(("_PORT", "_SERVICE_HOST", "_SERVICE_PORT"))
