"""A Kafka download (KAFKA_HOME): its Java, its properties, its storage and the commands of its tools."""

import base64
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from shutil import which
from typing import Final
from uuid import uuid4

from stream.commands.broker_process import BrokerNotFound

OLDEST_JAVA: Final = 17  # Kafka 4 brokers do not start on an older one


def java_environment(environ: Mapping[str, str], folder: Path) -> dict[str, str]:
    """The environment for Kafka's scripts: a Java that is new enough first in PATH, a small heap, and log files in our
    folder.
    """
    path = environ.get("PATH", "")
    if environ.get("JAVA_HOME"):
        path = f"{environ['JAVA_HOME']}/bin:{path}"
    java = which("java", path=path)
    if java is None:
        raise BrokerNotFound(
            f"KAFKA_HOME is set, but there is no java in JAVA_HOME or PATH: install Java {OLDEST_JAVA} or unset KAFKA_HOME"
        )
    ended = subprocess.run([java, "-version"], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    version = re.search(r'version "(?:1\.)?(\d+)', ended.stderr + ended.stdout)
    if ended.returncode or version is None:
        raise BrokerNotFound(
            f"KAFKA_HOME is set, but `{java} -version` failed: {(ended.stderr + ended.stdout).strip()[:200]}"
        )
    if int(version[1]) < OLDEST_JAVA:
        raise BrokerNotFound(
            f"KAFKA_HOME is set, but {java} is Java {version[1]}: install Java {OLDEST_JAVA} or newer, or unset KAFKA_HOME"
        )
    heap = "-Xmx512m -XX:+UseSerialGC"
    return {
        **environ,
        "PATH": path,
        "LOG_DIR": str(
            folder / "kafka-logs"
        ),  # without it the scripts write into KAFKA_HOME, where we may not be allowed to write
        "KAFKA_HEAP_OPTS": "-Xmx512m",
        "KAFKA_JVM_PERFORMANCE_OPTS": heap,
        "KAFKA_OPTS": f"{environ.get('KAFKA_OPTS', '')} {heap}".strip(),
        "EXTRA_ARGS": "",  # kafka-server-start.sh would add -loggc
    }


def format_storage(home: Path, environ: Mapping[str, str], folder: Path, port: int, controller_port: int) -> Path:
    """Write server.properties and make the data folder a KRaft node's, unless it is one already; topics of an earlier
    run stay.
    """
    data = folder / "kafka-data"
    data.mkdir(parents=True, exist_ok=True)
    properties = folder / "server.properties"
    properties.write_text(
        SERVER_PROPERTIES.format(port=port, controller_port=controller_port, data=data.resolve()), encoding="utf-8"
    )
    if (data / "meta.properties").exists():
        return properties
    cluster = (
        base64.urlsafe_b64encode(uuid4().bytes).decode().rstrip("=").replace("-", "_")
    )  # a leading "-" would be read as an option
    ended = subprocess.run(
        [
            *tool(home, "kafka-storage.sh", "kafka.tools.StorageTool"),
            "format",
            "--ignore-formatted",
            "-t",
            cluster,
            "-c",
            str(properties),
        ],
        env=dict(environ),
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    if ended.returncode:
        raise BrokerNotFound(
            f"KAFKA_HOME={home}: formatting {data} failed: {(ended.stderr + ended.stdout).strip()[-500:]}"
        )
    return properties


def tool(home: Path, script: str, class_name: str) -> list[str]:
    """The command of a Kafka tool: its script, or, where a reduced Kafka has no scripts, its class."""
    own = home / "bin" / script
    return [str(own)] if own.is_file() else [str(home / "bin" / "kafka-run-class.sh"), class_name]


# One node: every replication factor is 1. A quick group protocol: session times below Kafka's lower limit of 6 s make
# crash tests short. The cleaner looks every second, and not every 15, for what can be compacted: a test waits until
# what was forgotten is gone.
SERVER_PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller_port}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
log.dirs={data}
num.network.threads=2
num.io.threads=2
auto.create.topics.enable=false
offsets.topic.num.partitions=4
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
log.cleaner.dedupe.buffer.size=16777216
log.cleaner.backoff.ms=1000
log.segment.bytes=67108864
log.index.size.max.bytes=1048576
"""
