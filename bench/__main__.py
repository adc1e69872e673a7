"""`make bench`: throughput, cost, latency of lists, cost of a fold. Prints tables (docs/benchmarks.md).

Needs a real Kafka (KAFKA_HOME or REC2PM_TEST_BOOTSTRAP): with the embedded broker, the broker would be measured.
`--peers FOLDER` also runs Kafka Streams, Quix and Faust, which do the same bookkeeping without a model. Compare ratios
of one round: these machines are shared.
"""

import argparse
import os
import platform
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path

import numpy as np
import psutil
import torch
from confluent_kafka import libversion
from confluent_kafka.admin import AdminClient

from bench import journey, latency, null_model
from bench.journey import Program, Run
from model.log import in_time_order, read_log
from model.networks import kinds
from model.networks.config import NetworkConfig
from model.networks.network import initialise
from model.synthetic import SyntheticLog, generate
from model.version import artifact
from model.version.manifest import Manifest, memory_format
from model.version.registry import Registry
from stream.commands.broker import found_broker
from tests.processes import ROOT

SEGMENT_LENGTH = 200
"""Segment length of the SASRec-4L artifact."""
SLOW = 60_000
"""Records for a peer that processes a few thousand a second."""


def worker(name: str, models: Path, model: str, segment_length: int, **settings: str) -> Program:
    """Our worker, with more settings: the shell creates the topics, then becomes the worker."""
    env = {
        "BOOTSTRAP_SERVERS": "{bootstrap}",
        "APP": "{group}",
        "INTERACTIONS_TOPIC": "{input}",
        "RECOMMENDATIONS_TOPIC": "{output}",
        "STATE_DIR": "{state}",
        "MODELS": str(models),
        "MODEL": model,
        "RECOMMEND": "fold",
        "STEP_BUDGET_MS": "100",
        **settings,
    }
    given = " ".join(f"REC2PM_{key}={value}" for key, value in env.items())
    run = f"{sys.executable} -P -m stream"
    return Program(
        name, f'env PYTHONPATH={ROOT} {given} sh -c "{run} topics create && exec {run} worker"', segment_length
    )


def ceiling() -> Program:
    return Program(
        "consume + decode",
        f"env PYTHONPATH={ROOT} {sys.executable} -m bench.ceiling {{bootstrap}} {{group}} {{input}} {{output}}",
    )


def peers(folder: Path | None, python: str, kafka_home: str | None) -> list[Program]:
    """Kafka Streams, Quix and Faust, from a folder with their programs; those that cannot start here are left out."""
    if folder is None:
        return []
    folder = folder.resolve()
    common = (
        "--bootstrap {bootstrap} --group {group} --input {input} --output {output} --state-dir {state} --commit-ms 100"
    )
    found = []
    if kafka_home and (folder / "kstreams").is_dir():
        java = f"java -Xmx1g -XX:+UseSerialGC -cp {folder}/kstreams/*:{Path(kafka_home).resolve()}/libs/* peers.KStreamsPeer {common}"
        found.append(Program("ks-eos", f"{java} --guarantee exactly_once_v2"))
        found.append(Program("ks-eos-cache", f"{java} --guarantee exactly_once_v2 --cache 10485760"))
    if subprocess.run([python, "-c", "import quixstreams"], capture_output=True, check=False).returncode == 0:
        found.append(Program("quix-eos", f"{python} {folder}/quix_peer.py {common} --guarantee exactly-once"))
    if subprocess.run([python, "-c", "import faust"], capture_output=True, check=False).returncode == 0:
        found.append(Program("faust", f"{python} {folder}/faust_peer.py {common} --store rocksdb://", records=SLOW))
    return found


def sasrec(models: Path, items: list[int | str], segment_length: int = SEGMENT_LENGTH, seed: int = 0) -> str:
    """Write a version of SASRec-4L (d=64, C=4), untrained: its cost does not depend on its weights. Returns its
    reference.
    """
    torch.manual_seed(seed)
    config = NetworkConfig.of_table({"n_items": len(items), "segment_length": segment_length})
    network = kinds.build(config)
    initialise(network, torch.Generator().manual_seed(seed))
    serving = kinds.serving(network, torch.linspace(1, 0, len(items) + 1))
    sha256 = artifact.weights_sha256(serving)
    manifest = Manifest(
        name="sasrec-4l",
        version="",
        kind="rec2pm-o",
        memory_format=memory_format(config.kind, serving.initial_memory(1).shape[1:], sha256),
        segment_length=segment_length,
        state_floats=serving.spec()["state_floats"],
        n_items=len(items),
        config={},
        training=None,
        metrics=None,
        weights_sha256=sha256,
        program_version=metadata.version("rec2pm"),
    )
    return Registry(models).add(serving, manifest, items).reference


def rounds(
    bootstrap: str,
    folder: Path,
    programs: list[Program],
    loads: dict[tuple[int, int | None], journey.Load],
    repeats: int,
) -> list[Run]:
    """Run every program once a round; the order is reversed each round."""
    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 3})
    runs = []
    for turn in range(repeats):
        for program in programs if turn % 2 == 0 else programs[::-1]:
            given = loads[program.segment_length, program.records]
            run = journey.measure(
                bootstrap, folder, program, journey.load(bootstrap, admin, given), given.records, turn
            )
            print(
                f"  round {turn}: {run.program:<18} {run.rate:>9,.0f}/s  {run.cpu_s_per_million:5.1f} CPU s per million",
                file=sys.stderr,
            )
            runs.append(run)
    return runs


def machine() -> str:
    """The machine, the versions and the commit."""
    model = next(
        (
            line.split(":")[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        "?",
    )
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.strip()
    dirty = subprocess.run(
        ["git", "status", "--porcelain", "-uno"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.strip()
    return (
        f"{model}, {psutil.cpu_count()} cores, {psutil.virtual_memory().total / 2**30:.0f} GiB; Python {platform.python_version()}, "
        f"torch {torch.__version__}, librdkafka {libversion()[0]}, rocksdict {metadata.version('rocksdict')}, numpy {np.__version__}; "
        f"commit {commit}{' with changes' if dirty else ''}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="make bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--log", help="interactions to mix (default: a synthetic log of the same size as MovieLens-1M)")
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peers", type=Path, help="folder with the peers' programs")
    parser.add_argument("--peers-python", default=sys.executable, help="an interpreter that has quixstreams and faust")
    asked = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="rec2pm-bench-") as scratch,
        found_broker(os.environ, Path(scratch)) as broker,
    ):
        if broker.kind == "embedded":
            raise SystemExit(
                "make bench needs a real Kafka: set KAFKA_HOME to an unpacked Kafka download, or REC2PM_TEST_BOOTSTRAP"
            )
        text = report(
            asked,
            Path(scratch),
            broker.bootstrap,
            "the Kafka of KAFKA_HOME" if broker.kind == "kafka" else f"{broker.kind} Kafka",
        )
    print(text)


def _arguments(asked: argparse.Namespace) -> str:
    """The arguments that matter to the numbers, without the paths of one machine."""
    log = f"--log {Path(asked.log).name}, " if asked.log else ""
    return f" with {log}--records {asked.records}, --rounds {asked.rounds}{', --peers' if asked.peers else ''}"


def report(asked: argparse.Namespace, folder: Path, bootstrap: str, description: str) -> str:
    models = folder / "models"
    null_model.write(Registry(models), 50)
    if asked.log:
        log = in_time_order(read_log(asked.log)).collect()
        source = f"`{Path(asked.log).name}`"
    else:
        log = generate(SyntheticLog(users=6_040, interactions_median=130.0, interactions_spread=0.8)).interactions
        source = "the synthetic log (6,040 users)"
    sasrec(models, log["item_id"].unique().sort().to_list())
    others = peers(asked.peers, asked.peers_python, os.environ.get("KAFKA_HOME"))
    ours = worker("rec2pm, null model", models, "null", 50)
    full = worker("rec2pm, SASRec-4L", models, "sasrec-4l", SEGMENT_LENGTH)
    base = "ks-eos" if any(program.name == "ks-eos" for program in others) else "consume + decode"

    mixed = {
        (primer, records): journey.interleaved(log, records or asked.records, primer)
        for primer, records in ((50, None), (50, SLOW), (SEGMENT_LENGTH, None))
    }
    print("interleaved users", file=sys.stderr)
    backlog = rounds(bootstrap, folder, [ceiling(), ours, full, *others], mixed, asked.rounds)
    print("occasional users", file=sys.stderr)
    few = {(50, None): journey.occasional(300_000, asked.records, 50)}
    rare = rounds(
        bootstrap, folder, [ceiling(), ours, *(peer for peer in others if peer.name == "ks-eos")], few, asked.rounds
    )
    print("latency", file=sys.stderr)
    waits = [
        (wait, latency.measure(bootstrap, folder, models, "null", rate=200, seconds=20, wait_ms=wait))
        for wait in (10, 20)
    ]
    print("folds", file=sys.stderr)
    costs = []
    for backbone in ("sasrec", "hstu"):
        command = [sys.executable, "-m", "bench.fold", "--backbone", backbone]
        costs += ["", subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()]
    state_us = 1e6 / float(np.median([run.rate for run in backlog if run.program == ours.name]))
    whole_us = 1e6 / float(np.median([run.rate for run in backlog if run.program == full.name]))
    return "\n".join(
        [
            "# Benchmarks",
            "",
            f"Printed by `make bench`{_arguments(asked)}. {machine()}. Broker: {description}, on the same machine.",
            "These machines are shared and noisy: compare the rows of one table, not the tables of two days.",
            "",
            "## A backlog, users interleaved",
            "",
            (
                f"{asked.records:,} interactions of {source}, users mixed at random, 4 partitions, one process, a transaction at least every 100 ms; "
                f"medians of {asked.rounds} interleaved rounds. The peers do the state path's bookkeeping (newest 50 items per user, a record of 10 "
                "ids every 50th interaction) and have no model. Changelog figures are per interaction."
            ),
            "",
            *journey.table(backlog, base),
            "",
            (
                f"The state path costs {state_us:.1f} µs an interaction; with SASRec-4L (fold every {SEGMENT_LENGTH}, a list per fold) it is "
                f"{whole_us:.1f} µs."
            ),
            "",
            "## A backlog, 300,000 occasional users",
            "",
            f"{asked.records:,} generated interactions of 300,000 users; the worker keeps at most 200,000 of them in memory (50,000 a partition), the rest is read from RocksDB.",
            "",
            *journey.table(rare, base),
            "",
            "## Light load",
            "",
            "200 interactions a second, a list for each, null model: from `produce` to a read_committed reader.",
            "",
            "| REC2PM_WAIT_MS | p50 ms | p99 ms | worst ms | lists |",
            "|---:|---:|---:|---:|---:|",
            *(f"| {wait} | {each.p50:.1f} | {each.p99:.1f} | {each.worst:.1f} | {each.sent} |" for wait, each in waits),
            "",
            "## A fold",
            "",
            "`python -m bench.fold`: every kind of model as the worker has it, one thread. Tok-Serial is served by the program of Rec2PM.",
            *costs,
            "",
            "## Training",
            "",
            "`python -m bench.training`, beside RecTools' SASRec: [training.md](training.md#how-fast).",
            "",
        ]
    )


if __name__ == "__main__":
    main()
