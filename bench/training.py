"""How fast training is, beside RecTools' SASRec. `python -m bench.training [--log FILE]` prints Markdown.

Both use the same users, the newest 201 interactions of each (a window of 200 and the next one), once an epoch in
batches of 128, the same catalogue, and networks of the same shape. Every measurement is its own process, and the
programs take turns. The first epoch of each does not count. RecTools needs another NumPy and its own lightning_fabric,
so it has its own interpreter (docs/training.md).
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from bench.__main__ import machine
from model.log import in_time_order, read_log
from model.synthetic import SyntheticLog, generate
from tests.processes import ROOT

WINDOW, SEGMENT_LENGTH, BATCH = 200, 50, 128
NETWORK = {"d": 64, "layers": 2, "heads": 4, "dropout": 0.2, "temperature": 0.05}
LR = 1e-3
KINDS = ("full", "full, meta", "trunc", "rec2pm-o", "tok-serial-o", "kv-mask-o", "holomambarec")
RECTOOLS = "RecTools SASRec"


@dataclass(frozen=True)
class Loss:
    """Items that a target is compared with. RecTools: None is all. Ours: per position or per batch; None is V."""

    rectools: int | None
    ours: int | None
    mode: str
    words: str


LOSSES = {
    "position": Loss(
        128,
        128,
        "position",
        "128 negatives for every position, on both sides (RecTools: `sampled_softmax`).",
    ),
    "catalogue": Loss(
        None,
        None,
        "shared",
        "The whole catalogue. RecTools: `softmax`, its default, at every place of a window, padding too. Ours has no full softmax; it draws as "
        "many shared negatives as there are items, the same matrix product, at the places that have a target.",
    ),
    "default": Loss(
        None,
        512,
        "shared",
        "Both with their defaults: RecTools `softmax` over the whole catalogue, ours 512 negatives shared by the batch.",
    ),
}


@dataclass(frozen=True)
class Measured:
    """One process: median seconds of the epochs that count, and windows and targets of an epoch."""

    program: str
    loss: str
    turn: int
    seconds: float
    windows: int
    targets: int
    parameters: int
    libraries: dict[str, str]


def prepared(log: pl.DataFrame, users: int, folder: Path) -> int:
    """Write the newest interactions of some users, drawn by a seed, for both sides; returns the number of items."""
    chosen = log["user_id"].unique().sort()
    chosen = chosen.sample(min(users, len(chosen)), seed=0)
    kept = (
        log.filter(pl.col("user_id").is_in(chosen.implode())).group_by("user_id", maintain_order=True).tail(WINDOW + 1)
    )
    for name, column in (("user", "user_id"), ("item", "item_id")):
        np.save(folder / f"{name}.npy", kept[column].rank("dense").cast(pl.Int64).to_numpy())
    # Only the order of times matters, and equal times keep their order.
    np.save(folder / "time.npy", np.arange(len(kept)) * 1_000)
    return kept["item_id"].n_unique()


def ours(kind: str, loss: Loss, n_items: int, epochs: int, devices: int) -> tuple[list[str], dict[str, Any]]:
    name, _, backbone = kind.partition(", ")
    network = {
        **NETWORK,
        "kind": name,
        "backbone": backbone or "sasrec",
        "segment_length": SEGMENT_LENGTH,
        "segments": WINDOW // SEGMENT_LENGTH,
    }
    training = {
        "windows": "newest",
        "batch": BATCH,
        "min_item_count": 1,
        "oov_share": 0.0,
        "negatives": loss.ours or n_items,
        "negative_mode": loss.mode,
        "lr": LR,
        "max_epochs": epochs,
        "patience": epochs + 1,
        "checkpoint_minutes": 1e9,
    }
    return [sys.executable, "-m", "bench.our_training"], {"network": network, "training": training, "devices": devices}


def rectools(python: str, loss: Loss, epochs: int, threads: int) -> tuple[list[str], dict[str, Any]]:
    settings = {
        **NETWORK,
        "window": WINDOW,
        "batch": BATCH,
        "lr": LR,
        "negatives": loss.rectools,
        "epochs": epochs,
        "threads": threads,
    }
    return [python, str(ROOT / "tests" / "bench" / "rectools_sasrec.py")], settings


def measured(command: Sequence[str], folder: Path, settings: dict[str, Any], threads: int) -> dict[str, Any]:
    """Run a program; returns the JSON that it prints.

    Raises:
        RuntimeError: it failed; the message has the end of its output.
    """
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": str(threads), "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        [*command, str(folder), json.dumps(settings)], cwd=ROOT, env=env, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    printed: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return printed


def rounds(folder: Path, n_items: int, cores: int, asked: argparse.Namespace) -> list[Measured]:
    """Run every program with every loss once a round; the order is reversed each round."""
    found = []
    # Two comparisons use RecTools' softmax, which is its default. It is measured once a round.
    once = (
        [loss for loss in asked.loss if loss != "default" or "catalogue" not in asked.loss]
        if asked.rectools_python
        else []
    )
    plan = [(loss, program) for loss in asked.loss for program in ([RECTOOLS] * (loss in once) + asked.kind)]
    for turn in range(asked.rounds):
        for loss, program in plan if turn % 2 == 0 else plan[::-1]:
            if program == RECTOOLS:
                command, settings = rectools(asked.rectools_python, LOSSES[loss], asked.epochs + 1, cores)
            else:
                command, settings = ours(program, LOSSES[loss], n_items, asked.epochs + 1, cores)
            printed = measured(command, folder, settings, cores if program == RECTOOLS else 1)
            seconds = statistics.median(printed["seconds"][1:])
            one = Measured(
                program,
                loss,
                turn,
                seconds,
                printed["windows"],
                printed["targets"],
                printed["parameters"],
                printed.get("libraries", {}),
            )
            print(
                f"  {cores} cores, round {turn}: {loss:<9} {program:<15} {one.windows / seconds:8.1f} windows/s",
                file=sys.stderr,
            )
            found.append(one)
    sizes = {(one.windows, one.targets) for one in found}
    if len(sizes) > 1:
        raise RuntimeError(f"not everything learned from the same (windows, targets): {sorted(sizes)}")
    return found


def table(found: list[Measured], loss: str) -> list[str]:
    """The table as Markdown. Ratios are within a round."""
    peers = {
        one.turn: one for one in found if one.program == RECTOOLS and LOSSES[one.loss].rectools == LOSSES[loss].rectools
    }
    runs = [*peers.values(), *(one for one in found if one.loss == loss and one.program != RECTOOLS)]
    lines = [
        "| network | parameters | windows/s | min..max | interactions/s | ÷ RecTools |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for program in dict.fromkeys(one.program for one in runs):
        each = [one for one in runs if one.program == program]
        speeds = [one.windows / one.seconds for one in each]
        ratios = [peers[one.turn].seconds / one.seconds for one in each if one.turn in peers]
        lines.append(
            f"| {program} | {each[0].parameters:,} | {statistics.median(speeds):,.1f} | {min(speeds):,.1f}..{max(speeds):,.1f} "
            f"| {statistics.median(one.targets / one.seconds for one in each):,.0f} | {f'{statistics.median(ratios):.2f}' if ratios else '–'} |"
        )
    return lines


def report(asked: argparse.Namespace, folder: Path) -> str:
    if asked.log:
        log, source = in_time_order(read_log(asked.log)).collect(), f"`{Path(asked.log).name}`"
    else:
        log = generate(SyntheticLog(users=6_040, interactions_median=130.0, interactions_spread=0.8)).interactions
        source = "the synthetic log (6,040 users)"
    n_items = prepared(log, asked.users, folder)
    found = {cores: rounds(folder, n_items, cores, asked) for cores in dict.fromkeys((1, asked.cores))}
    first = found[1][0]
    libraries = next((one.libraries for one in found[1] if one.libraries), {})
    versions = ", ".join(f"{name} {version}" for name, version in libraries.items())
    lines = [
        "# Training speed",
        "",
        f"Printed by `python -m bench.training`{_arguments(asked)}. {machine()}.",
        f"The other side: {versions or 'RecTools was not measured (--rectools-python)'}.",
        "",
        (
            f"{first.windows:,} users of {source}, the newest {WINDOW + 1} interactions of each: {first.targets:,} to learn from an epoch, {n_items:,} items. "
            f"Medians of {asked.rounds} interleaved rounds, each the median of {asked.epochs} epochs after one that is not counted; without validation. "
            f"2 layers, {NETWORK['heads']} heads, d={NETWORK['d']}, FFN of the same width, dropout {NETWORK['dropout']}, logits cosines over {NETWORK['temperature']}, "
            f"batch {BATCH}; ours in {WINDOW // SEGMENT_LENGTH} segments of {SEGMENT_LENGTH}. RecTools: windows padded to {WINDOW}, Adam. "
            "Ours: windows of about the same length share a batch, AdamW, gradients clipped to 1. `full, meta` is the block that RecTools has."
        ),
    ]
    for cores, runs in found.items():
        title = (
            "One thread"
            if cores == 1
            else f"{cores} cores: RecTools with {cores} threads, ours with `--devices {cores}`, a thread each"
        )
        for loss in asked.loss:
            lines += ["", f"{title}. {LOSSES[loss].words}", "", *table(runs, loss)]
    return "\n".join([*lines, ""])


def _arguments(asked: argparse.Namespace) -> str:
    """The arguments that matter to the numbers, without the paths of one machine."""
    log = f"--log {Path(asked.log).name}, " if asked.log else ""
    return f" with {log}--users {asked.users}, --rounds {asked.rounds}, --epochs {asked.epochs}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.training", description=__doc__)
    parser.add_argument(
        "--log", help="interactions to learn from (default: a synthetic log of the same size as MovieLens-1M)"
    )
    parser.add_argument("--users", type=int, default=512, help="users drawn from the log")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=1, help="epochs that count, in each process")
    parser.add_argument("--cores", type=int, default=len(os.sched_getaffinity(0)), help="beside one")
    parser.add_argument("--kind", action="append", choices=KINDS, help="default: all")
    parser.add_argument("--loss", action="append", choices=sorted(LOSSES), help="default: all")
    parser.add_argument("--rectools-python", help="an interpreter that has RecTools; without one only ours is measured")
    asked = parser.parse_args()
    asked.kind, asked.loss = asked.kind or list(KINDS), asked.loss or list(LOSSES)
    with tempfile.TemporaryDirectory(prefix="rec2pm-bench-") as scratch:
        print(report(asked, Path(scratch)))


if __name__ == "__main__":
    main()
