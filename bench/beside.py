"""Compare this checkout with another one: `python -m bench.beside CHECKOUT [--models FOLDER]` prints a table.

Both workers read the same topics with the same models in turn; the order is reversed each round. CHECKOUT needs a
`.venv` (`make install`). This checkout makes the models. If the other cannot load them, name a registry with `null` and
`sasrec-4l` that both can load. Needs a real Kafka, as `make bench` does.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench import journey, null_model
from bench.__main__ import SEGMENT_LENGTH, SLOW, machine, rounds, sasrec
from bench.journey import Program
from model.synthetic import SyntheticLog, generate
from model.version.registry import Registry
from stream.commands.broker import found_broker
from tests.processes import ROOT

LOADS = {
    "state path (null model), a list per fold": ("null", "fold", 50, None),
    "SASRec-4L, a list per fold": ("sasrec-4l", "fold", SEGMENT_LENGTH, None),
    "SASRec-4L, a list per interaction": ("sasrec-4l", "interaction", SEGMENT_LENGTH, SLOW),
}
"""Model, REC2PM_RECOMMEND, segment length, number of records if not the default."""
COMMANDS = (["--help"], ["train", "--help"], ["worker", "--help"])
STARTS = 10


def program(name: str, checkout: Path, models: Path, model: str, cadence: str, length: int, few: int | None) -> Program:
    env = {
        "BOOTSTRAP_SERVERS": "{bootstrap}",
        "APP": "{group}",
        "INTERACTIONS_TOPIC": "{input}",
        "RECOMMENDATIONS_TOPIC": "{output}",
        "STATE_DIR": "{state}",
        "MODELS": str(models),
        "MODEL": model,
        "RECOMMEND": cadence,
        "STEP_BUDGET_MS": "100",
    }
    given = " ".join(f"REC2PM_{key}={value}" for key, value in env.items())
    run = f"{checkout}/.venv/bin/rec2pm"
    return Program(name, f'env {given} sh -c "{run} topics create && exec {run} worker"', length, few)


def started(checkout: Path, arguments: list[str]) -> float:
    """Median seconds of a command that only prints."""
    took = []
    for _ in range(STARTS):
        began = time.perf_counter()
        subprocess.run([f"{checkout}/.venv/bin/rec2pm", *arguments], capture_output=True, check=True)
        took.append(time.perf_counter() - began)
    return statistics.median(took)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench.beside", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkout", type=Path)
    parser.add_argument("--models", type=Path, help="a registry with null and sasrec-4l")
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    other = asked.checkout.resolve()
    log = generate(SyntheticLog(users=6_040, interactions_median=130.0, interactions_spread=0.8)).interactions
    with (
        tempfile.TemporaryDirectory(prefix="rec2pm-bench-") as scratch,
        found_broker(os.environ, Path(scratch)) as broker,
    ):
        if broker.kind == "embedded":
            raise SystemExit("needs a real Kafka: set KAFKA_HOME or REC2PM_TEST_BOOTSTRAP")
        models = asked.models.resolve() if asked.models else Path(scratch) / "models"
        if asked.models is None:
            null_model.write(Registry(models), 50)
            sasrec(models, log["item_id"].unique().sort().to_list())
        programs = [
            program(f"{load}, {side}", checkout, models, *of)
            for load, of in LOADS.items()
            for side, checkout in (("other", other), ("this", ROOT))
        ]
        mixed = {
            (each.segment_length, each.records): journey.interleaved(
                log, each.records or asked.records, each.segment_length
            )
            for each in programs
        }
        runs = rounds(broker.bootstrap, Path(scratch), programs, mixed, asked.rounds)
    print(
        f"Printed by `python -m bench.beside CHECKOUT --records {asked.records} --rounds {asked.rounds}`. {machine()}."
    )
    print("\n| load | other, interactions/s | this | this ÷ other, each round |\n|---|---:|---:|---|")
    for load in LOADS:
        before, after = ([run.rate for run in runs if run.program == f"{load}, {side}"] for side in ("other", "this"))
        ratios = ", ".join(f"{new / old:.2f}" for old, new in zip(before, after, strict=True))
        print(f"| {load} | {statistics.median(before):,.0f} | {statistics.median(after):,.0f} | {ratios} |")
    print(f"\n| command, median of {STARTS} | other, s | this, s |\n|---|---:|---:|")
    for arguments in COMMANDS:
        print(f"| `rec2pm {' '.join(arguments)}` | {started(other, arguments):.2f} | {started(ROOT, arguments):.2f} |")


if __name__ == "__main__":
    sys.exit(main())
