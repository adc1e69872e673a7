"""Does a memory help if old interactions say more than new ones? Train and compare models on a log made for that.

`python -m bench.memory` generates a log of users with three favourite genres of thirty. Six of ten interactions are
with a favourite genre, in no order; the others are with any item. It trains each of the models below on this log for
the same time, one after another, and evaluates them as `rec2pm evaluate` does. Segments have 5 interactions: a model
without memory knows the newest 5, a window has 40. The report is written to --out.
"""

import argparse
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

from rich.console import Console

from bench.__main__ import machine
from model.evaluation import compare, report
from model.log import read_log
from model.synthetic import SyntheticLog, generate
from model.training import recipe
from model.training.train import train
from model.version.registry import ModelVersion, Registry
from stream.torch_threads import one_thread

LOG = SyntheticLog(
    users=2_000,
    items=600,
    genres=30,
    favourites=3,
    favourite_share=0.6,
    stickiness=0.0,
    interactions_median=60,
    interactions_spread=0.3,
)
NETWORK: dict[str, Any] = {"segment_length": 5, "segments": 8, "layers": 2, "heads": 4, "d": 64}
TRAINING: dict[str, Any] = {
    "split": "last-out",
    "min_item_count": 1,
    "lr": 3e-3,
    "validation_targets": 1_000,
    "patience": 1_000,
    "max_epochs": 1_000,
}
MODELS: dict[str, dict[str, Any]] = {
    "trunc": {"kind": "trunc"},
    "full": {"kind": "full"},
    "tok-serial-o": {"kind": "tok-serial-o"},
    "kv-mask-o": {"kind": "kv-mask-o"},
    "rec2pm-o": {"kind": "rec2pm-o", "stage1_weight": 1.0, "rollout": 0.5},
    "rec2pm-o-no-rollout": {"kind": "rec2pm-o", "stage1_weight": 1.0},
    "rec2pm-o-no-consistency": {"kind": "rec2pm-o", "stage1_weight": 1.0, "rollout": 0.5, "con_weight": 0.0},
    "rec2pm-o-no-stage-1": {"kind": "rec2pm-o", "rollout": 0.5},
}
"""By name. The others are compared with the first that is requested."""


def trained(name: str, registry: Registry, log: Path, seconds: float, seed: int) -> ModelVersion:
    chosen = recipe.changed(
        recipe.load(recipe.DEFAULT),
        [
            f"{key}={value}"
            for key, value in {**NETWORK, **MODELS[name], **TRAINING, "max_seconds": seconds, "seed": seed}.items()
        ],
    )
    return train(
        read_log(log),
        registry,
        chosen,
        name=f"{name}-{seed}",
        log_name=str(log),
        program_version=metadata.version("rec2pm"),
        clock=time.monotonic,
        unfinished="discard",
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.memory", description=__doc__.partition("\n")[0])  # type: ignore[union-attr]
    parser.add_argument(
        "--out", type=Path, default=Path("var/memory"), help="folder for the log, the models and the report"
    )
    parser.add_argument("--seconds", type=float, default=240.0, help="seconds of training for each model (default 240)")
    parser.add_argument(
        "--models", nargs="+", choices=MODELS, default=list(MODELS), metavar="NAME", help=f"of {', '.join(MODELS)}"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    asked = parser.parse_args()
    one_thread()
    asked.out.mkdir(parents=True, exist_ok=True)
    log = asked.out / "log.parquet"
    generate(LOG).interactions.write_parquet(log)
    print(machine(), "\n", " ".join(sys.argv[1:]), sep="", flush=True)
    registry = Registry(asked.out / "models")
    for seed in asked.seeds:
        versions = []
        for name in asked.models:
            versions.append(trained(name, registry, log, asked.seconds, seed))
            manifest = versions[-1].manifest()
            assert manifest.training is not None
            print(f"{name}, seed {seed}: {manifest.training.epochs} epochs, {manifest.metrics}", flush=True)
        options = compare.EvaluationOptions(split="last-out")
        found = compare.evaluate(read_log(log), versions, options, log_name=log.name, progress=lambda _done, _of: None)
        libraries = {
            name: metadata.version(name) for name in ("rec2pm", "torch", "numpy", "polars", "scipy", "matplotlib")
        }
        arguments = {"seconds": asked.seconds, "seed": seed}
        Console(width=140).print(report.table(found))
        print(
            f"the report is {report.write(found, asked.out / f'report-{seed}', arguments=arguments, versions=libraries)}",
            flush=True,
        )


if __name__ == "__main__":
    main()
