"""Speed of a restore, beside Quix Streams' recovery of the same keys and values. Prints Markdown.

`python -m bench.restore [--quix-python PYTHON]`: one process, 4 partitions, an empty state folder, an input without new
records. Programs take turns; every run reads the same topics. Our time is from our log, from the first assignment to
the last `restored`. Quix' time is from its log, from `Beginning recovery check` to `Recovery process complete`, which
comes after a poll that found nothing for a second. The bare reader reads our topic with the same client settings and
stores nothing.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import changelogs, null_model, worker_log
from bench.__main__ import machine
from bench.changelogs import PARTITIONS, Content, Written
from bench.started import Started, StartedWorker, Usage, as_shipped, between
from bench.worker_log import Line
from model.version.registry import Registry
from stream.commands.broker import found_broker
from tests.processes import ROOT, rec2pm

OURS, QUIX, BARE = "rec2pm", "Quix Streams", "bare reader"
QUIX_ENDS = "Recovery process complete! Resuming normal processing..."
_PATIENCE_S = 900.0


@dataclass(frozen=True, slots=True)
class Restored:
    """One run of one program.

    Attributes:
        seconds: from the program's own log.
        whole_s: from the start of the process to the end of the restore (ours: to /readyz), seen from outside.
        cpu_s: user and system time from the assignment on.
        start_mb: memory of the process at the assignment; `rss_mb` is its peak at the end.
    """

    program: str
    content: str
    turn: int
    seconds: float
    whole_s: float
    cpu_s: float
    start_mb: float
    rss_mb: float


@dataclass(frozen=True, slots=True)
class Prepared:
    """A content that is in Kafka."""

    content: Content
    written: Written
    app: str
    group: str

    @property
    def quix_input(self) -> str:
        return f"{self.group}.in"


def prepared(bootstrap: str, content: Content, env: dict[str, str], app: str, *, quix: bool) -> Prepared:
    """Create the topics and fill the changelogs."""
    group = f"{app}-quix"
    found = Prepared(content, Written(0, 0), app, group)
    changelog = f"changelog__{group}--{found.quix_input}--default"
    changelogs.create(bootstrap, [f"{app}.changelog", *([changelog] if quix else [])])
    if (made := rec2pm("topics", "create", "--partitions", str(PARTITIONS), env=env)).returncode:
        raise RuntimeError(made.stderr)
    if quix:
        changelogs.consumed_input(bootstrap, group, found.quix_input)
    written = changelogs.write(bootstrap, content, f"{app}.changelog", changelog if quix else None, found.quix_input)
    return Prepared(content, written, app, group)


def ours(given: Prepared, env: dict[str, str], folder: Path, turn: int) -> Restored:
    name = f"ours-{given.content.kind}-{turn}"
    state = folder / name
    with StartedWorker({**env, "REC2PM_STATE_DIR": str(state)}, folder / f"{name}.log") as worker:
        used = worker.watched_until_ready(_PATIENCE_S)
        began, ended, records = timed(worker_log.read(worker.log))
        found = _restored(OURS, given, turn, began, ended, used, used[-1].at - worker.began)
    if records != given.written.records:
        raise RuntimeError(f"{name}: restored {records} records, expected {given.written.records}")
    shutil.rmtree(state)
    return found


def _restored(
    program: str, given: Prepared, turn: int, began: float, ended: float, used: Sequence[Usage], whole_s: float
) -> Restored:
    cpu_s, start_mb = between(used, began)
    return Restored(program, given.content.kind, turn, ended - began, whole_s, cpu_s, start_mb, used[-1].peak_rss_mb)


def timed(lines: Sequence[Line]) -> tuple[float, float, int]:
    """Epoch seconds of the first assignment and of the last partition's `restored`; and the number of records.

    Raises:
        ValueError: the log lacks one of them for a partition.
    """
    first = worker_log.assigned(lines)
    done = worker_log.restored(lines, range(PARTITIONS))
    if first is None or len(done) < PARTITIONS:
        raise ValueError(
            f"the log has an assignment: {first is not None}; `restored` of partitions {sorted(done)}, expected {PARTITIONS}"
        )
    return (
        first.at,
        max(line.at for line in done.values()),
        int(sum(line.number("records") or 0 for line in done.values())),
    )


def quix(given: Prepared, bootstrap: str, python: str, folder: Path, turn: int) -> Restored:
    name = f"quix-{given.content.kind}-{turn}"
    state = folder / name
    state.mkdir()
    command = [
        python,
        "-W",
        "ignore",
        str(ROOT / "tests" / "bench" / "quix_restore.py"),
        bootstrap,
        given.group,
        given.quix_input,
        str(state),
    ]
    with Started(command, None, folder / f"{name}.log", cwd=state) as app:
        used = app.watched_until(lambda: QUIX_ENDS in app.log.read_text(), _PATIENCE_S, f"{name} has recovered")
        lines = {line.event: line.at for line in worker_log.read(app.log)}
        began, ended = lines["Beginning recovery check..."], lines[QUIX_ENDS]
        found = _restored(QUIX, given, turn, began, ended, used, ended - app.began)
    printed = subprocess.run([*command[:4], "--count", str(state)], capture_output=True, text=True, check=True)
    keys = json.loads(printed.stdout)["keys"]
    if keys != given.written.records:
        raise RuntimeError(f"{name}: its stores have {keys} keys, expected {given.written.records}")
    shutil.rmtree(state)
    return found


def bare(given: Prepared, bootstrap: str, turn: int) -> Restored:
    command = [sys.executable, "-m", "bench.bare_restore", bootstrap, f"{given.app}.changelog"]
    printed = json.loads(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout)
    if printed["records"] != given.written.records:
        raise RuntimeError(f"the bare reader found {printed['records']} records, expected {given.written.records}")
    return Restored(
        BARE,
        given.content.kind,
        turn,
        printed["seconds"],
        printed["seconds"],
        printed["cpu_s"],
        printed["start_mb"],
        printed["rss_mb"],
    )


def rounds(
    bootstrap: str, folder: Path, contents: Sequence[Content], repeats: int, python: str | None
) -> tuple[list[Prepared], list[Restored]]:
    """Run every program with every content once a round; the order is reversed each round."""
    null_model.write(Registry(folder / "models"), changelogs.FOLDED_EVERY)
    there, runs = [], []
    for content in contents:
        app = f"restore-{content.kind}"
        env = as_shipped(bootstrap, app, MODELS=str(folder / "models"), MODEL="null", RECOMMEND="fold")
        print(f"  writing {content.records:,} records of {content.kind}", file=sys.stderr)
        given = prepared(bootstrap, content, env, app, quix=python is not None)
        there.append(given)
        programs = [BARE, OURS, *([QUIX] if python is not None else [])]
        for turn in range(repeats):
            for program in programs if turn % 2 == 0 else programs[::-1]:
                if program == BARE:
                    run = bare(given, bootstrap, turn)
                elif program == OURS:
                    run = ours(given, env, folder, turn)
                else:
                    run = quix(given, bootstrap, str(python), folder, turn)
                print(
                    f"  round {turn}: {content.kind:<9} {program:<13} {content.records / run.seconds:>11,.0f} records/s",
                    file=sys.stderr,
                )
                runs.append(run)
    return there, runs


def table(given: Prepared, runs: Sequence[Restored]) -> list[str]:
    """Medians, and the ratio of rates to Quix within each round."""
    mine = [run for run in runs if run.content == given.content.kind]
    quixes = {run.turn: run for run in mine if run.program == QUIX}
    lines = [
        "| program | records/s | min..max | MB/s | ÷ Quix | start to ready, s | CPU s per million | RSS MB, at first → peak |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    records = given.written.records
    for program in dict.fromkeys(run.program for run in mine):
        each = [run for run in mine if run.program == program]
        rates = [records / run.seconds for run in each]
        ratios = [quixes[run.turn].seconds / run.seconds for run in each if run.turn in quixes]
        megabytes = statistics.median(rates) * given.written.key_value_bytes / records / 1e6
        lines.append(
            f"| {program} | {statistics.median(rates):,.0f} | {min(rates):,.0f}..{max(rates):,.0f} | {megabytes:,.1f} "
            f"| {f'{statistics.median(ratios):.2f}' if ratios else '–'} "
            f"| {'–' if program == BARE else f'{statistics.median(run.whole_s for run in each):.1f}'} "
            f"| {statistics.median(run.cpu_s for run in each) / records * 1e6:.2f} "
            f"| {statistics.median(run.start_mb for run in each):.0f} → {statistics.median(run.rss_mb for run in each):.0f} |"
        )
    return lines


def report(asked: argparse.Namespace, there: Sequence[Prepared], runs: Sequence[Restored], versions: str) -> str:
    arguments = f"--small {asked.small} --memories {asked.memories} --rounds {asked.rounds}{' --quix-python PYTHON' if asked.quix_python else ''}"
    lines = [
        "# Restore",
        "",
        f"Printed by `python -m bench.restore {arguments}`. {machine()}.",
        f"Beside it: {versions or 'Quix Streams was not measured (--quix-python)'}. Broker: Kafka, on the same machine.",
        "",
        (
            f"One process, {PARTITIONS} partitions, an empty state folder; medians of {asked.rounds} interleaved rounds. Times are from the programs' own logs, "
            "from the assignment to the last partition's end; Quix notices the end by a poll of a second that finds nothing. MB are keys and values. "
            "Both topics were written by the same transactions; Quix' records carry the headers that it reads. "
            "The worker has torch and a model loaded before it is assigned anything."
        ),
    ]
    for given in there:
        size = given.written.key_value_bytes / given.written.records
        lines += [
            "",
            f"`{given.content.kind}`: {given.written.records:,} records of {size:.0f} bytes, key and value, in the mean.",
            "",
        ]
        lines += table(given, runs)
    return "\n".join([*lines, ""])


def _versions(python: str | None, folder: Path) -> str:
    if python is None:
        return ""
    command = [
        python,
        "-W",
        "ignore",
        str(ROOT / "tests" / "bench" / "quix_restore.py"),
        "--count",
        str(folder / "nothing"),
    ]
    printed = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return ", ".join(f"{name} {version}" for name, version in printed["versions"].items())


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench.restore", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--small", type=int, default=400_000, help="records of working memory; 0: not this content")
    parser.add_argument(
        "--memories", type=int, default=100_000, help="records of preference memories, 1 KB each; 0: not this content"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quix-python", help="an interpreter that has quixstreams; without one Quix is not measured")
    asked = parser.parse_args()
    contents = [
        Content(kind, records) for kind, records in (("small", asked.small), ("memories", asked.memories)) if records
    ]
    with (
        tempfile.TemporaryDirectory(prefix="rec2pm-bench-") as scratch,
        found_broker(os.environ, Path(scratch)) as broker,
    ):
        if broker.kind == "embedded":
            raise SystemExit(
                "a restore is measured on a real Kafka: set KAFKA_HOME to an unpacked Kafka download, or REC2PM_TEST_BOOTSTRAP"
            )
        versions = _versions(asked.quix_python, Path(scratch))
        there, runs = rounds(broker.bootstrap, Path(scratch), contents, asked.rounds, asked.quix_python)
    print(report(asked, there, runs, versions))


if __name__ == "__main__":
    main()
