"""Train RecTools' SASRec as its users do, and time every epoch: bench.training compares with it.

It runs with its own interpreter, `python bench/rectools_sasrec.py DATA SETTINGS`, and imports nothing of this
repository: RecTools needs another NumPy and its own lightning_fabric. DATA is a folder with user.npy, item.npy (int64)
and time.npy (int64 ms); SETTINGS is JSON. Prints JSON.
"""

import json
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytorch_lightning
import torch
from rectools import Columns
from rectools.dataset import Dataset
from rectools.models import SASRecModel


class Watch(pytorch_lightning.Callback):
    """Seconds of every epoch, from before its first batch to after its last step; sizes of the last one."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.windows = self.targets = 0
        self._began = 0.0

    def on_train_epoch_start(self, *_: Any) -> None:
        self.windows = self.targets = 0
        self._began = time.perf_counter()

    def on_train_batch_end(
        self, _trainer: Any, _module: Any, _outputs: Any, batch: dict[str, torch.Tensor], *_: Any
    ) -> None:
        self.windows += len(batch["y"])
        self.targets += int((batch["y"] != 0).sum())

    def on_train_epoch_end(self, *_: Any) -> None:
        self.seconds.append(time.perf_counter() - self._began)


def main() -> None:
    folder, settings = Path(sys.argv[1]), json.loads(sys.argv[2])
    torch.set_num_threads(settings["threads"])
    torch.manual_seed(0)

    def trainer() -> pytorch_lightning.Trainer:
        return pytorch_lightning.Trainer(
            max_epochs=settings["epochs"],
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[Watch()],
        )

    columns = {name: np.load(folder / f"{name}.npy") for name in ("user", "item", "time")}
    log = pd.DataFrame(
        {
            Columns.User: columns["user"],
            Columns.Item: columns["item"],
            Columns.Weight: 1.0,
            Columns.Datetime: pd.to_datetime(columns["time"], unit="ms"),
        }
    )
    model = SASRecModel(
        n_blocks=settings["layers"],
        n_heads=settings["heads"],
        n_factors=settings["d"],
        dropout_rate=settings["dropout"],
        session_max_len=settings["window"],
        batch_size=settings["batch"],
        lr=settings["lr"],
        # Both losses use cosines divided by a temperature, as ours do.
        loss="softmax" if settings["negatives"] is None else "sampled_softmax",
        n_negatives=settings["negatives"] or 1,
        similarity_module_kwargs={"distance": "cosine"},
        lightning_module_kwargs={"logits_t": settings["temperature"]},
        get_trainer_func=trainer,
    )
    model.fit(Dataset.construct(log))
    # RecTools trains with a copy of the given trainer.
    (watch,) = (callback for callback in model.fit_trainer.callbacks if isinstance(callback, Watch))
    libraries = {name: metadata.version(name) for name in ("rectools", "torch", "pytorch-lightning", "numpy")}
    found = {"seconds": watch.seconds, "windows": watch.windows, "targets": watch.targets, "libraries": libraries}
    found["parameters"] = sum(parameter.numel() for parameter in model.torch_model.parameters())
    print(json.dumps(found))


if __name__ == "__main__":
    main()
