"""Train one of our kinds as `rec2pm train` does, and time every epoch: one measurement of bench.training.

`python -m bench.our_training DATA SETTINGS` is its own process. DATA is a folder with user.npy, item.npy (int64) and
time.npy (int64 ms). SETTINGS is JSON as `main` reads it. Prints JSON with the same fields as bench/rectools_sasrec.py.
"""

import json
import sys
import tempfile
import time
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from lightning_fabric import Fabric

from model.networks import kinds
from model.networks.config import NetworkConfig, without_foreign_fields
from model.training import checkpoint, dataset, fit
from model.training.recipe import TrainingOptions
from model.version.manifest import Metrics


class Timed(fit._Fit):
    """Training as users run it, but without validation, and with whole windows from the first epoch."""

    def __init__(self, fabric: Fabric, job: fit.Job) -> None:
        super().__init__(fabric, job, [])
        staged = self.network.stage
        self.network.stage = lambda _: staged(1_000_000)
        self.began: float = time.perf_counter()
        self.seconds: list[float] = []

    def _validated(self, next_item: float | None, consistency: float | None) -> None:
        self.seconds.append(time.perf_counter() - self.began)
        super()._validated(next_item, consistency)
        self.began = time.perf_counter()

    def _metrics(self) -> Metrics:
        return Metrics(targets=0, hr_at_10=0.0, ndcg_at_10=0.0, popularity_hr_at_10=0.0)


def _run(fabric: Fabric, job: fit.Job) -> list[float]:
    torch.set_num_threads(job.threads)
    warnings.filterwarnings("ignore", "find_unused_parameters=True was specified")
    timed = Timed(fabric, job)
    outcome = timed.outcome()
    if outcome.ended != "finished":
        raise RuntimeError(f"training {outcome.ended}: {outcome.detail}")
    return timed.seconds[1:]  # the first is the time before the first epoch


def measure(log: pl.LazyFrame, network: dict[str, Any], training: dict[str, Any], devices: int) -> dict[str, Any]:
    """Seconds of every epoch, and the windows and targets of one."""
    options = TrainingOptions(**training)
    with tempfile.TemporaryDirectory(prefix="rec2pm-bench-") as scratch:
        folder = Path(scratch)
        data = dataset.load(log, min_item_count=options.min_item_count, validation_share=0.0, folder=folder)
        # The settings are the same for every kind; each kind uses those that it has.
        config = NetworkConfig.of_table(without_foreign_fields({"n_items": len(data.item_ids), **network}))
        made = kinds.build(config)
        kinds.initialise(made, torch.Generator().manual_seed(options.seed))
        checkpoint.write(fit.first_checkpoint({}, made), folder / "checkpoint.pt")
        job = fit.Job(
            data=folder,
            checkpoint=folder / "checkpoint.pt",
            tensorboard=None,
            config=config,
            training=options,
            clock=time.monotonic,
            progress=None,
            threads=1,
        )
        seconds = _launched(job, devices)
        windows = fit.windows(data, config.shape, options)
        batches = [windows.cut(rows, 1, number) for number, rows in enumerate(windows.epoch(1))]
        return {
            "seconds": seconds,
            "windows": sum(len(batch) for batch in batches if batch is not None),
            "targets": sum(int((batch.targets != 0).sum()) for batch in batches if batch is not None),
            "parameters": sum(parameter.numel() for parameter in made.parameters()),
        }


def _launched(job: fit.Job, devices: int) -> list[float]:
    """As `fit.fit` does it."""
    strategy: Any = "auto"
    if devices > 1:
        strategy = fit.DDPStrategy(start_method="spawn", find_unused_parameters=True)
    seconds: list[float] = Fabric(accelerator="cpu", devices=devices, strategy=strategy).launch(partial(_run, job=job))
    return seconds


def main() -> None:
    folder, settings = Path(sys.argv[1]), json.loads(sys.argv[2])
    columns = {"user_id": "user", "item_id": "item", "timestamp": "time"}
    log = pl.LazyFrame({column: np.load(folder / f"{name}.npy") for column, name in columns.items()})
    print(json.dumps(measure(log, settings["network"], settings["training"], settings["devices"])))


if __name__ == "__main__":
    main()
