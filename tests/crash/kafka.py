"""A real Kafka as a child process that can be killed, stopped, paused, and started again on the same data and ports.

It has two listeners for clients. Who must see everything (the feeder, the oracle) uses the direct one. The other says to its clients that
the broker is at a proxy's address (`tests.crash.proxy`): whoever comes in through the proxy stays behind it for every connection.
"""

import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from stream import broker
from tests.processes import wait_until

READY_WITHIN_S = 90.0
STOPS_WITHIN_S = 30.0

# Of a property that is named twice, the last one counts: these come after those of `stream.broker`.
_PROPERTIES = """
listeners=DIRECT://127.0.0.1:{direct},PROXIED://127.0.0.1:{behind_proxy},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=DIRECT://127.0.0.1:{direct},PROXIED://127.0.0.1:{proxy}
listener.security.protocol.map=DIRECT:PLAINTEXT,PROXIED:PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=DIRECT
group.min.session.timeout.ms=1000
# A killed broker's registration has to end before it may come back; the default is 9 s.
broker.session.timeout.ms=2000
broker.heartbeat.interval.ms=400
# Transactions past their time-out are looked for this often. The default, 10 s, would be added to every stall that waits for one to end,
# and a run sees fewer faults; nothing else depends on it.
transaction.abort.timed.out.transaction.cleanup.interval.ms=1000
# Compaction is part of what is tried: a changelog with gaps, tombstones and moved segments.
log.cleaner.backoff.ms=1000
"""


@dataclass(frozen=True, slots=True)
class Ports:
    """On 127.0.0.1. A client that comes in at `proxy`, which leads to `behind_proxy`, is told to go on using `proxy`."""

    direct: int
    behind_proxy: int
    proxy: int
    controller: int


class Kafka:
    """One broker. Its data stays in its folder from one start to the next."""

    def __init__(self, folder: Path, ports: Ports, environ: Mapping[str, str]) -> None:
        home = Path(environ["KAFKA_HOME"]).expanduser().resolve()
        self.direct = f"127.0.0.1:{ports.direct}"
        self.log = folder / "kafka.log"
        self._port = ports.direct
        self._folder = folder
        self._running = ExitStack()
        self._process: broker._Process | None = None
        folder.mkdir(parents=True, exist_ok=True)
        self._environ = broker._with_java(environ, folder)
        # It starts often and never runs for long: what the second compiler gains comes too late.
        self._environ["KAFKA_OPTS"] += " -XX:TieredStopAtLevel=1"
        properties = broker._format_storage(home, self._environ, folder, ports.direct, ports.controller)
        with properties.open("a", encoding="utf-8") as more:
            more.write(
                _PROPERTIES.format(direct=ports.direct, behind_proxy=ports.behind_proxy, proxy=ports.proxy, controller=ports.controller)
            )
        self._command = [*broker._tool(home, "kafka-server-start.sh", "kafka.Kafka"), str(properties)]

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self.launch()
        self.wait_until_ready()

    def launch(self) -> None:
        self._process = broker._started(self._command, self.log, self._environ, self._folder, self._running)

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
        self._process = None

    def _ready(self) -> bool:
        assert self._process is not None
        code = self._process.broker.poll()
        if code is not None:
            raise RuntimeError(f"Kafka ended with {code}; the end of {self.log}:\n{broker._tail(self.log)}")
        return broker._accepts(self._port) and broker._answers(self.direct)

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
def running(folder: Path, ports: Ports, environ: Mapping[str, str]) -> Iterator[Kafka]:
    """A broker that is up, for as long as the block lasts."""
    kafka = Kafka(folder, ports, environ)
    try:
        kafka.start()
        yield kafka
    finally:
        kafka.close()
