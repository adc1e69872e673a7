"""A real Kafka as a child process that can be killed, stopped, paused, and started again on the same data and ports.

It has two listeners for clients. Who must see everything (the feeder, the oracle) uses the direct one. The other says
to its clients that the broker is at a proxy's address (`tests.crash.proxy`): whoever comes in through the proxy stays
behind it for every connection.
"""

import os
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from stream.commands import kafka_home
from stream.commands.broker_process import BrokerProcess, accepts, started, tail
from tests.processes import wait_until
from tests.quick_java import quick_java

READY_WITHIN_S = 90.0
STOPS_WITHIN_S = 30.0

# The controller is a process of its own, which no fault is aimed at. In one process with the broker, Kafka 4.3.1 loses
# transactions when it is killed: what was being committed at that moment is taken up again at the start, while the
# broker's partitions have no leader yet; the coordinator takes such partitions for deleted, leaves out their markers,
# and notes the transaction as complete. No reader gets past it. For the same reason a broker that is only paused has to
# come back before the controller gives its partitions up (9 s, the default), and transactions past their time-out are
# looked for as seldom as by default: a broker that has just started looks after 10 s, not before its partitions have a
# leader.
_CONTROLLER = """
process.roles=controller
node.id=100
controller.quorum.voters=100@127.0.0.1:{controller}
listeners=CONTROLLER://127.0.0.1:{controller}
advertised.listeners=CONTROLLER://127.0.0.1:{controller}
log.dirs={data}
"""
# Of a property that is named twice, the last one counts: these come after those of `stream.commands.kafka_home`.
_BROKER = """
process.roles=broker
controller.quorum.voters=100@127.0.0.1:{controller}
listeners=DIRECT://127.0.0.1:{direct},PROXIED://127.0.0.1:{behind_proxy}
advertised.listeners=DIRECT://127.0.0.1:{direct},PROXIED://127.0.0.1:{proxy}
listener.security.protocol.map=DIRECT:PLAINTEXT,PROXIED:PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=DIRECT
log.dirs={data}
group.min.session.timeout.ms=1000
# Compaction is part of what is tried: a changelog with gaps, tombstones and moved segments.
log.cleaner.backoff.ms=1000
"""


@dataclass(frozen=True, slots=True)
class Ports:
    """On 127.0.0.1. A client that comes in at `proxy`, which leads to `behind_proxy`, is told to go on using
    `proxy`.
    """

    direct: int
    behind_proxy: int
    proxy: int
    controller: int


class Kafka:
    """One broker. Its data stays in its folder from one start to the next."""

    def __init__(self, folder: Path, ports: Ports, environ: Mapping[str, str], more: str = "") -> None:
        """`more`: properties of both nodes, one a line."""
        self._home = Path(environ["KAFKA_HOME"]).expanduser().resolve()
        self.direct = f"127.0.0.1:{ports.direct}"
        self.log = folder / "kafka.log"
        self._port = ports.direct
        self._folder = folder
        self._running, self._controlling = ExitStack(), ExitStack()
        self._process: BrokerProcess | None = None
        folder.mkdir(parents=True, exist_ok=True)
        self._environ = kafka_home.java_environment(quick_java(environ), folder)
        values = {
            "direct": ports.direct,
            "behind_proxy": ports.behind_proxy,
            "proxy": ports.proxy,
            "controller": ports.controller,
        }
        cluster = uuid4().hex[:22]
        common = (
            kafka_home.SERVER_PROPERTIES.format(port=ports.direct, controller_port=ports.controller, data=folder) + more
        )
        controller = self._formatted(
            "controller", common + _CONTROLLER.format(data=folder / "controller-data", **values), cluster
        )
        self._command = self._formatted(
            "server", common + _BROKER.format(data=folder / "kafka-data", **values), cluster
        )
        started(controller, folder / "controller.log", self._environ, folder, self._controlling)

    def _formatted(self, name: str, properties: str, cluster: str) -> list[str]:
        """The command that starts a node with these properties; its storage is made."""
        path = self._folder / f"{name}.properties"
        path.write_text(properties, encoding="utf-8")
        made = subprocess.run(
            [
                *kafka_home.tool(self._home, "kafka-storage.sh", "kafka.tools.StorageTool"),
                "format",
                "-t",
                cluster,
                "-c",
                str(path),
            ],
            env=self._environ,
            capture_output=True,
            text=True,
            check=False,
        )
        if made.returncode:
            raise RuntimeError(f"storage of {path} was not made: {made.stdout}{made.stderr}")
        return [*kafka_home.tool(self._home, "kafka-server-start.sh", "kafka.Kafka"), str(path)]

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self.launch()
        self.wait_until_ready()

    def launch(self) -> None:
        self._process = started(self._command, self.log, self._environ, self._folder, self._running)

    def wait_until_ready(self) -> None:
        wait_until(self._ready, READY_WITHIN_S, f"Kafka answers at {self.direct} (log: {self.log})")

    def kill(self) -> None:
        """SIGKILL: what it has not written stays unwritten."""
        self._end(signal.SIGKILL)

    def terminate(self) -> None:
        """SIGTERM, and wait until it is gone."""
        self._end(signal.SIGTERM)

    def pause(self) -> None:
        """SIGSTOP: connections stay, answers do not come."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def close(self) -> None:
        if self._process is not None:
            self.resume()
        self._running.close()
        self._controlling.close()
        self._process = None

    def _ready(self) -> bool:
        assert self._process is not None
        code = self._process.broker.poll()
        if code is not None:
            raise RuntimeError(f"Kafka ended with {code}; the end of {self.log}:\n{tail(self.log)}")
        return accepts(self._port) and self._leads()

    def _leads(self) -> bool:
        """Whether it is the leader of every partition: after a start that comes a moment later than the first
        answer.
        """
        try:
            found = AdminClient({"bootstrap.servers": self.direct, "log_level": 0}).list_topics(timeout=2)
        except KafkaException:
            return False
        return bool(found.brokers) and all(
            each.leader >= 0 for topic in found.topics.values() for each in topic.partitions.values()
        )

    def _end(self, number: signal.Signals) -> None:
        self._signal(number)
        assert self._process is not None
        self._process.broker.wait(STOPS_WITHIN_S)
        self._process = None
        # Ends the guard that would kill the process group should this process die.
        self._running.close()

    def _signal(self, number: signal.Signals) -> None:
        if self._process is None:
            raise RuntimeError("Kafka does not run")
        # The start script may be a shell with Java below it.
        os.killpg(self._process.broker.pid, number)


@contextmanager
def running(folder: Path, ports: Ports, environ: Mapping[str, str], more: str = "") -> Iterator[Kafka]:
    """A broker that is up, for as long as the block lasts. `more`: properties, one a line."""
    kafka = Kafka(folder, ports, environ, more)
    try:
        kafka.start()
        yield kafka
    finally:
        kafka.close()
