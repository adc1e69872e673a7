"""What training shows while it runs: a bar on a terminal, and scalars for TensorBoard."""

import shutil
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from model.training.checkpoint import Epoch

EVERY_STEPS = 10
"""The scalars of every 10th step are written: more would be noise in a large file."""


TENSORBOARD = ".tensorboard"
"""The folder of event files in a registry: TENSORBOARD/NAME/VERSION, and TENSORBOARD/NAME/running during training."""


def kept_scalars(folder: Path, version: int | None) -> None:
    """Move the scalars of a training to the version that it became; remove them if `version` is None."""
    running = folder / "running"
    if version is None:
        shutil.rmtree(running, ignore_errors=True)
    elif running.is_dir():
        shutil.rmtree(folder / str(version), ignore_errors=True)
        running.rename(folder / str(version))


def progress_bar() -> Progress:
    """The bar on a terminal, on stderr."""
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[metrics]}"), TimeElapsedColumn())
    return Progress(*columns, console=Console(stderr=True))


class Reporter:
    """The bar counts seconds if the time is limited, else epochs. A step of TensorBoard is a batch.

    Args:
        bar: None shows nothing.
        tensorboard: a folder for event files; None writes none.
        learned_steps: where training resumes. Later scalars of an interrupted attempt are purged.
    """

    def __init__(
        self,
        bar: Progress | None,
        tensorboard: Path | None,
        learned_steps: int,
        max_seconds: float | None,
        max_epochs: int,
    ) -> None:
        # Imported here, because the bar does not need it.
        from tensorboardX import SummaryWriter

        self._bar = bar or Progress(disable=True)
        self._writer = (
            SummaryWriter(str(tensorboard), purge_step=learned_steps or None) if tensorboard is not None else None
        )
        self._by_time = max_seconds is not None
        self._task = self._bar.add_task("training", total=max_seconds or max_epochs, metrics="")
        self._bar.start()

    def step(self, learned_steps: int, scalars: dict[str, float], elapsed_s: float, epochs: float) -> None:
        self._bar.update(self._task, completed=elapsed_s if self._by_time else epochs)
        if learned_steps % EVERY_STEPS == 0:
            self._write(scalars, learned_steps)

    def epoch(self, epoch: Epoch, best: Epoch, learned_steps: int, samples: int, elapsed_s: float) -> None:
        found, known = epoch.metrics, best.metrics
        rate = samples / max(elapsed_s, 1e-3)  # validation included
        shown = f"HR@10 {found.hr_at_10:.3f} (best {known.hr_at_10:.3f}, popularity {known.popularity_hr_at_10:.3f}), {rate:.0f} windows/s"
        self._bar.update(self._task, completed=elapsed_s if self._by_time else epoch.number, metrics=shown)
        scalars = {
            "validation/ndcg_at_10": found.ndcg_at_10,
            "validation/hr_at_10": found.hr_at_10,
            "epoch": epoch.number,
        }
        if epoch.next_item is not None and epoch.consistency is not None:
            scalars |= {"epoch_loss/next_item": epoch.next_item, "epoch_loss/consistency": epoch.consistency}
        self._write(scalars, learned_steps)

    def close(self) -> None:
        self._bar.stop()
        if self._writer is not None:
            self._writer.close()

    def _write(self, scalars: dict[str, float], learned_steps: int) -> None:
        if self._writer is not None:
            for name, value in scalars.items():
                self._writer.add_scalar(name, value, learned_steps)
