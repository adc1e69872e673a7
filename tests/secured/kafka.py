"""A Kafka of KAFKA_HOME with a listener for each way to connect, and an authorizer that allows only what is granted.

Everybody but the administrator needs a rule for everything. A client of the listeners PLAINTEXT and TLS is
`User:ANONYMOUS`; one of MTLS is named by its certificate, one of SCRAM by its user name. The listener ASTRAY sends its
clients to an address where nobody listens.
"""

import random
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

from confluent_kafka import KafkaException
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)

from stream.commands import kafka_home
from stream.commands.broker_process import started, tail
from tests.crash.ports import free_ports
from tests.processes import wait_until
from tests.quick_java import quick_java
from tests.secured import certificates
from tests.secured.certificates import HOST, Certificates

USER: Final = "shop-user"
PASSWORD: Final = "shop-secret"
_ADMIN: Final = "admin"
_ADMIN_PASSWORD: Final = "admin-secret"
_READY_WITHIN_S: Final = 90.0
_KNOWN_WITHIN_S: Final = 30.0

Rule = tuple[ResourceType, str, ResourcePatternType, AclOperation]
"""Kind of resource, name, how the name is meant, and what is allowed."""

_PLAIN: Final = "org.apache.kafka.common.security.plain.PlainLoginModule required"
_PROPERTIES: Final = """
listeners=PLAINTEXT://{host}:{PLAINTEXT},TLS://{host}:{TLS},MTLS://{host}:{MTLS},SCRAM://{host}:{SCRAM},ADMIN://{host}:{ADMIN},ASTRAY://{host}:{ASTRAY},CONTROLLER://127.0.0.1:{CONTROLLER}
advertised.listeners=PLAINTEXT://{host}:{PLAINTEXT},TLS://{host}:{TLS},MTLS://{host}:{MTLS},SCRAM://{host}:{SCRAM},ADMIN://{host}:{ADMIN},ASTRAY://{host}:1
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,TLS:SSL,MTLS:SSL,SCRAM:SASL_SSL,ADMIN:SASL_PLAINTEXT,ASTRAY:PLAINTEXT,CONTROLLER:SASL_PLAINTEXT
inter.broker.listener.name=ADMIN
sasl.mechanism.inter.broker.protocol=PLAIN
sasl.mechanism.controller.protocol=PLAIN
sasl.enabled.mechanisms=PLAIN
listener.name.scram.sasl.enabled.mechanisms=SCRAM-SHA-512
listener.name.scram.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.admin.plain.sasl.jaas.config={plain}
listener.name.controller.plain.sasl.jaas.config={plain}
ssl.keystore.type=PEM
ssl.keystore.location={broker}
ssl.truststore.type=PEM
ssl.truststore.location={authority}
listener.name.mtls.ssl.client.auth=required
listener.name.mtls.ssl.principal.mapping.rules=RULE:^CN=([^,]*).*$/$1/
ssl.principal.mapping.rules=RULE:^CN=([^,]*).*$/$1/
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:admin
"""


@dataclass(frozen=True, slots=True)
class SecuredKafka:
    """A running broker. `ports`: listener → port on `HOST`."""

    ports: Mapping[str, int]
    files: Certificates
    admin: AdminClient

    @property
    def administrator(self) -> dict[str, str]:
        """Options of a client that may do everything."""
        return {
            "bootstrap.servers": self.address("ADMIN"),
            "security.protocol": "SASL_PLAINTEXT",
            "sasl.mechanism": "PLAIN",
            "sasl.username": _ADMIN,
            "sasl.password": _ADMIN_PASSWORD,
        }

    @property
    def settings_of_administrator(self) -> dict[str, str]:
        """The same as settings, without `REC2PM_`."""
        options = dict(self.administrator)
        bootstrap = {"BOOTSTRAP_SERVERS": options.pop("bootstrap.servers")}
        return bootstrap | {f"KAFKA_{name.upper().replace('.', '_')}": value for name, value in options.items()}

    def client(self, listener: str) -> dict[str, str]:
        """`right`, as librdkafka's options."""
        return {
            name.removeprefix("KAFKA_").lower().replace("_", "."): value for name, value in self.right(listener).items()
        }

    def address(self, listener: str, host: str = HOST) -> str:
        return f"{host}:{self.ports[listener]}"

    def right(self, listener: str) -> dict[str, str]:
        """The settings, without `REC2PM_`, of a client that does everything right."""
        tls = {"KAFKA_SSL_CA_LOCATION": str(self.files.authority)}
        security = {
            "PLAINTEXT": {},
            "TLS": {"KAFKA_SECURITY_PROTOCOL": "SSL", **tls},
            "MTLS": {
                "KAFKA_SECURITY_PROTOCOL": "SSL",
                **tls,
                "KAFKA_SSL_CERTIFICATE_LOCATION": str(self.files.client),
                "KAFKA_SSL_KEY_LOCATION": str(self.files.client_key),
            },
            "SCRAM": {
                "KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
                **tls,
                "KAFKA_SASL_MECHANISM": "SCRAM-SHA-512",
                "KAFKA_SASL_USERNAME": USER,
                "KAFKA_SASL_PASSWORD": PASSWORD,
            },
        }
        return {"BOOTSTRAP_SERVERS": self.address(listener), **security[listener]}

    @staticmethod
    def principal(listener: str) -> str:
        return f"User:{USER}" if listener in ("MTLS", "SCRAM") else "User:ANONYMOUS"

    def grant(self, principal: str, rules: Iterable[Rule]) -> None:
        """Allow this, and wait until the broker knows it."""
        wanted = [_binding(principal, rule) for rule in rules]
        if not wanted:
            return
        for future in self.admin.create_acls(wanted).values():
            future.result(_KNOWN_WITHIN_S)
        wait_until(lambda: set(wanted) <= set(self._known(principal)), _KNOWN_WITHIN_S, "the broker knows the rules")

    def revoke(self, principal: str) -> None:
        """Allow nothing any more, and wait until the broker knows it."""
        for future in self.admin.delete_acls([_every(principal)]).values():
            future.result(_KNOWN_WITHIN_S)
        wait_until(lambda: not self._known(principal), _KNOWN_WITHIN_S, "the broker has dropped the rules")

    def _known(self, principal: str) -> list[Any]:
        return list(self.admin.describe_acls(_every(principal)).result(_KNOWN_WITHIN_S))


def _binding(principal: str, rule: Rule) -> Any:
    kind, name, pattern, operation = rule
    return AclBinding(kind, name, pattern, principal, "*", operation, AclPermissionType.ALLOW)


def _every(principal: str) -> Any:
    return AclBindingFilter(
        ResourceType.ANY, None, ResourcePatternType.ANY, principal, None, AclOperation.ANY, AclPermissionType.ANY
    )


@contextmanager
def running(folder: Path, environ: Mapping[str, str]) -> Iterator[SecuredKafka]:
    """A broker that is up, for as long as the block lasts."""
    home = Path(environ["KAFKA_HOME"]).expanduser().resolve()
    folder.mkdir(parents=True, exist_ok=True)
    files = certificates.made(folder / "certificates", USER)
    names = ("PLAINTEXT", "TLS", "MTLS", "SCRAM", "ADMIN", "ASTRAY", "CONTROLLER")
    ports = dict(zip(names, free_ports(len(names), random.Random()), strict=True))
    java = kafka_home.java_environment(quick_java(environ), folder)
    plain = f'{_PLAIN} username="{_ADMIN}" password="{_ADMIN_PASSWORD}" user_{_ADMIN}="{_ADMIN_PASSWORD}";'
    properties = folder / "secured.properties"
    properties.write_text(
        kafka_home.SERVER_PROPERTIES.format(
            port=ports["PLAINTEXT"], controller_port=ports["CONTROLLER"], data=folder / "data"
        )
        + _PROPERTIES.format(host=HOST, plain=plain, broker=files.broker, authority=files.authority, **ports)
    )
    made = subprocess.run(
        [
            *kafka_home.tool(home, "kafka-storage.sh", "kafka.tools.StorageTool"),
            *("format", "-t", uuid4().hex[:22], "-c", str(properties)),
            *("--add-scram", f"SCRAM-SHA-512=[name={USER},password={PASSWORD}]"),
        ],
        env=java,
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode:
        raise RuntimeError(f"storage of {properties} was not made: {made.stdout}{made.stderr}")
    log = folder / "kafka.log"
    admin = AdminClient(
        {
            "bootstrap.servers": f"{HOST}:{ports['ADMIN']}",
            "security.protocol": "SASL_PLAINTEXT",
            "sasl.mechanism": "PLAIN",
            "sasl.username": _ADMIN,
            "sasl.password": _ADMIN_PASSWORD,
            "log_level": 0,
        }
    )
    with ExitStack() as stack:
        command = [*kafka_home.tool(home, "kafka-server-start.sh", "kafka.Kafka"), str(properties)]
        process = started(command, log, java, folder, stack)

        def ready() -> bool:
            if (code := process.broker.poll()) is not None:
                raise RuntimeError(f"Kafka ended with {code}; the end of {log}:\n{tail(log)}")
            try:
                return bool(admin.list_topics(timeout=2).brokers)
            except KafkaException:
                return False

        wait_until(ready, _READY_WITHIN_S, f"Kafka answers (log: {log})")
        yield SecuredKafka(ports, files, admin)
