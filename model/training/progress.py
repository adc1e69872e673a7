"""What training shows while it runs: how far it is, on stderr, and scalars for TensorBoard.

On a terminal that is one line, written over again and again. In a file or a pipe it is a whole line after an epoch, at
most one in 10 seconds, and one in 30 seconds within an epoch.
"""

import shutil
import sys
from pathlib import Path
from typing import Final, Protocol, TextIO

from model.training.checkpoint import Epoch
from model.training.recipe import TrainingOptions

EVERY_STEPS: Final = 10
"""The scalars of every 10th step are written: more would be noise in a large file."""
REDRAWN_S: Final = 0.2
TOLD_S: Final = 30.0
"""How often a terminal is drawn, and a line within an epoch is written."""
EPOCHS_TOLD_S: Final = 10.0
"""How often a line after an epoch is written: epochs may be as short as a second."""
COLUMNS: Final = 80

TENSORBOARD: Final = ".tensorboard"
"""The folder of event files in a registry: TENSORBOARD/NAME/VERSION, and TENSORBOARD/NAME/running during training."""


def kept_scalars(folder: Path, version: int | None) -> None:
    """Move the scalars of a training to the version that it became; remove them if `version` is None."""
    running = folder / "running"
    if version is None:
        shutil.rmtree(running, ignore_errors=True)
    elif running.is_dir():
        shutil.rmtree(folder / str(version), ignore_errors=True)
        running.rename(folder / str(version))


class Display(Protocol):
    """Where progress is shown."""

    interval_s: float
    """How often within an epoch."""
    epochs_s: float
    """How often at the ends of epochs, at most."""

    def epoch(self, line: str) -> None:
        """Show how far training is at the end of an epoch."""

    def within(self, line: str) -> None:
        """Show how far training is within an epoch."""

    def close(self) -> None: ...


class Terminal:
    """One line, written over."""

    interval_s = REDRAWN_S
    epochs_s = 0.0

    def __init__(self, stream: TextIO, columns: int = COLUMNS) -> None:
        # A line as wide as the terminal would be continued on the next one.
        self._stream, self._most = stream, columns - 1

    def epoch(self, line: str) -> None:
        self.within(line)

    def within(self, line: str) -> None:
        self._stream.write(f"\r\x1b[2K{line[: self._most]}")
        self._stream.flush()

    def close(self) -> None:
        self._stream.write("\r\x1b[2K")
        self._stream.flush()


class Lines:
    """A line for each text, for a file or a pipe."""

    interval_s = TOLD_S
    epochs_s = EPOCHS_TOLD_S

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def epoch(self, line: str) -> None:
        self._stream.write(f"{line}\n")
        self._stream.flush()

    within = epoch

    def close(self) -> None:
        pass


def on_stderr() -> Display:
    """The display of a command."""
    if sys.stderr.isatty():
        return Terminal(sys.stderr, shutil.get_terminal_size().columns)
    return Lines(sys.stderr)


class Clock:
    """How long training may still last, from how long it took so far.

    It ends at the latest after `max_epochs` or `max_seconds`. It ends at the earliest `patience` epochs after the best
    one, if none of them is better.
    """

    def __init__(self, options: TrainingOptions) -> None:
        self._options = options
        self._from: tuple[float, float] | None = None

    def left_s(self, elapsed_s: float, epochs: float, best: int) -> tuple[float, float] | None:
        """The seconds left, at least and at most; None while there is nothing to reckon with.

        Args:
            elapsed_s: seconds of this training so far, in all attempts.
            epochs: finished epochs, and the share of the running one.
            best: the number of the best epoch.
        """
        options = self._options
        if self._from is None:
            # What came before, such as the first validation, is no measure of an epoch.
            self._from = elapsed_s, epochs
        began_s, before = self._from
        limit = float("inf") if options.max_seconds is None else max(0.0, options.max_seconds - elapsed_s)
        if epochs <= before or elapsed_s <= began_s:
            return None if limit == float("inf") else (0.0, limit)
        epoch_s = (elapsed_s - began_s) / (epochs - before)
        most = min(limit, max(0.0, options.max_epochs - epochs) * epoch_s)
        return min(most, max(0.0, best + options.patience - epochs) * epoch_s), most


def left(seconds: tuple[float, float] | None) -> str:
    """Seconds left, at least and at most, in words."""
    if seconds is None:
        return "time left not known yet"
    (least, unit), (most, of_most) = (_about(each) for each in seconds)
    if (least, unit) == (most, of_most):
        return f"{most} {of_most} left"
    return f"{least} to {most} {of_most} left" if unit == of_most else f"{least} {unit} to {most} {of_most} left"


def _about(seconds: float) -> tuple[str, str]:
    for unit_s, unit in ((1, "s"), (60, "min"), (3600, "h"), (86_400, "d")):
        if seconds < 99.5 * unit_s:
            return f"{seconds / unit_s:.0f}", unit
    return "> 99", "d"


class Reporter:
    """Tells a display and TensorBoard about training. A step of TensorBoard is a batch.

    Args:
        display: None shows nothing.
        tensorboard: a folder for event files; None writes none.
        learned_steps: where training resumes. Later scalars of an interrupted attempt are purged.
        options: what ends training.
    """

    def __init__(
        self, display: Display | None, tensorboard: Path | None, learned_steps: int, options: TrainingOptions
    ) -> None:
        # Imported here, because the display does not need it.
        from tensorboardX import SummaryWriter

        self._display = display
        self._writer = (
            SummaryWriter(str(tensorboard), purge_step=learned_steps or None) if tensorboard is not None else None
        )
        self._clock = Clock(options)
        self._shown_s = 0.0
        self._accuracy = ""
        self._best = 0

    def step(self, learned_steps: int, scalars: dict[str, float], elapsed_s: float, epochs: float, loss: float) -> None:
        """A step of training.

        Args:
            epochs: finished epochs, and the share of the running one.
            loss: the mean next-item loss of the running epoch so far.
        """
        if learned_steps % EVERY_STEPS == 0:
            self._write(scalars, learned_steps)
        if self._display is not None and elapsed_s - self._shown_s >= self._display.interval_s:
            self._shown_s = elapsed_s
            done = -(-epochs // 1)  # of the last step of an epoch, that epoch
            share = f"epoch {done:.0f} {100 * (epochs - done + 1):.0f}%"
            remaining = left(self._clock.left_s(elapsed_s, epochs, self._best))
            self._display.within(f"{share}  loss {loss:#.4g}  {self._accuracy}  {remaining}")

    def epoch(self, epoch: Epoch, best: Epoch, learned_steps: int, elapsed_s: float) -> None:
        """The end of an epoch, or where training begins."""
        found = epoch.metrics
        self._best = best.number
        self._accuracy = f"NDCG@10 {found.ndcg_at_10:.4f}, best {best.metrics.ndcg_at_10:.4f}"
        remaining = left(self._clock.left_s(elapsed_s, epoch.number, best.number))
        began = epoch.next_item is None
        if self._display is not None and (began or elapsed_s - self._shown_s >= self._display.epochs_s):
            self._shown_s = elapsed_s
            at = "before epoch 1" if began else f"epoch {epoch.number}  loss {epoch.next_item:#.4g}"
            self._display.epoch(f"{at}  {self._accuracy}  {remaining}")
        scalars = {
            "validation/ndcg_at_10": found.ndcg_at_10,
            "validation/hr_at_10": found.hr_at_10,
            "epoch": epoch.number,
        }
        if epoch.next_item is not None and epoch.consistency is not None:
            scalars |= {"epoch_loss/next_item": epoch.next_item, "epoch_loss/consistency": epoch.consistency}
        self._write(scalars, learned_steps)

    def close(self) -> None:
        if self._display is not None:
            self._display.close()
        if self._writer is not None:
            self._writer.close()

    def _write(self, scalars: dict[str, float], learned_steps: int) -> None:
        if self._writer is not None:
            for name, value in scalars.items():
                self._writer.add_scalar(name, value, learned_steps)
