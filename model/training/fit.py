"""The training loop, from one checkpoint to the last, in one process or several.

A training begins with a checkpoint before its first step and ends with one after its last. So starting, resuming after
a crash and handing over the result are the same. numpy draws from (seed, epoch, step), the same in every process.
Dropout draws from (seed, epoch, step, process). A batch does not depend on the number of processes: of n processes,
each learns from every n-th window of it.
"""

import logging
import signal
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies.ddp import DDPStrategy
from torch import Tensor, nn
from torch.multiprocessing.spawn import ProcessExitedException

from model.networks import kinds
from model.networks.config import NetworkConfig, Shape
from model.networks.network import Network
from model.training import checkpoint as checkpoints
from model.training import dataset, validation
from model.training.checkpoint import Checkpoint, Epoch, Weights
from model.training.progress import Display, Reporter
from model.training.recipe import TrainingOptions
from model.training.signals import caught, passed_on
from model.training.windows import Batch, Windows, share
from model.version.manifest import Metrics

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What a training process needs to know. It is sent to other processes.

    `data` is a folder for `dataset.opened`, `checkpoint` an existing file. `clock` gives monotonic seconds. `threads`
    is the number of threads that torch uses in each process.
    """

    data: Path
    checkpoint: Path
    tensorboard: Path | None
    config: NetworkConfig
    training: TrainingOptions
    clock: Callable[[], float]
    progress: Callable[[], Display] | None
    threads: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """How training ended. `detail` says why: of a finished training, the field of the recipe that ended it. `signal` is
    the signal that interrupted it.
    """

    ended: Literal["finished", "interrupted", "diverged", "lost"]
    detail: str = ""
    signal: int = 0


def fit(job: Job, devices: int) -> Outcome:
    """Train on so many devices: GPUs if there are any, else processes on the CPU. The result is in the checkpoint."""
    if devices == 1:
        fabric = Fabric(accelerator="auto", devices=1, precision=job.training.precision)
        return Outcome(**fabric.launch(partial(_run, job=job)))
    # Not every batch uses every parameter: windows of one segment never read a memory.
    strategy = DDPStrategy(start_method="spawn", find_unused_parameters=True)
    fabric = Fabric(accelerator="auto", devices=devices, strategy=strategy, precision=job.training.precision)
    with passed_on() as passed:
        try:
            return Outcome(**fabric.launch(partial(_run, job=job)))
        except ProcessExitedException as error:
            # A signal ends processes that are still starting. The checkpoint is then the one that they were to start
            # from.
            if passed:
                return Outcome(
                    "interrupted", f"{signal.Signals(passed[0]).name} while its processes were starting", passed[0]
                )
            return Outcome("lost", f"one of {devices} training processes has ended: {error}")


def _run(fabric: Fabric, job: Job) -> dict[str, Any]:
    """The fields of the outcome: Fabric rebuilds what comes from another process, and can do that with a dict."""
    if fabric.world_size > 1:
        torch.set_num_threads(job.threads)
        warnings.filterwarnings("ignore", "find_unused_parameters=True was specified")
    with caught(escalates=fabric.world_size == 1) as signals:
        outcome = asdict(_Fit(fabric, job, signals).outcome())
    if fabric.world_size > 1:
        # A process that ends while the group's threads run may abort, and its finished training would count as lost.
        torch.distributed.destroy_process_group()
    return outcome


class _Losses(NamedTuple):
    """What a step learned from, over all processes: its two losses, and the norm of the gradient before clipping."""

    next_item: float = 0.0
    consistency: float = 0.0
    gradient_norm: float = 0.0


class _Flags(NamedTuple):
    """Why training may have to stop after a step. What holds in one process holds in all."""

    diverged: bool
    signalled: bool
    late: bool


@dataclass(frozen=True, slots=True)
class _Stepped:
    """What follows from a step: the outcome if training ended with it, and whether the time is up."""

    outcome: Outcome | None = None
    late: bool = False


class _Fit:
    def __init__(self, fabric: Fabric, job: Job, caught: list[int]) -> None:
        self.fabric, self.job, self.options, self.caught = fabric, job, job.training, caught
        self.began = job.clock()
        self.state = checkpoints.read(job.checkpoint)
        self.earlier_s = self.state.elapsed_s
        self.saved = self.began
        self.data = dataset.opened(job.data)
        self.targets = validation.choose(
            self.data,
            np.random.default_rng(self.options.seed),
            self.options.validation_targets,
            job.config.shape.segment_length,
        )
        self.windows = windows(self.data, job.config.shape, self.options)
        self.network = kinds.build(job.config, self.data.attribute_of())
        self.network.load_state_dict(self.state.network)
        optimizer = torch.optim.AdamW(
            _parameter_groups(self.network, self.options), betas=self.options.betas, fused=True
        )
        self.objective, self.optimizer = fabric.setup(_Objective(self.network), optimizer)
        if self.state.optimizer:
            optimizer.load_state_dict(self.state.optimizer)
        self.reporter: Reporter | None = None
        if fabric.is_global_zero:
            self.reporter = Reporter(
                job.progress() if job.progress is not None else None,
                job.tensorboard,
                self.state.learned_steps,
                self.options,
            )

    def outcome(self) -> Outcome:
        try:
            outcome = self._epochs()
        finally:
            if self.reporter is not None:
                self.reporter.close()
        return outcome

    def _epochs(self) -> Outcome:
        # Validate before the first step: so there is a best epoch even if no epoch finishes, and it is known how long a
        # validation takes.
        if not self.state.curve:
            self._validated(None, None)
        elif self.reporter is not None:
            self.reporter.epoch(
                self.state.curve[-1],
                self.state.curve[self.state.best],
                self.state.learned_steps,
                self._elapsed_s(),
            )
        while not (ended := self._ended_by()):
            self.network.stage(self.state.epoch + 1)
            self.network.train()
            epoch, plan = self.state.epoch + 1, self.windows.epoch(self.state.epoch + 1)
            while self.state.step < len(plan):
                batch = self.windows.cut(plan[self.state.step], epoch, self.state.step)
                stepped = self._step(batch, epoch, len(plan))
                if stepped.outcome is not None:
                    return stepped.outcome
                if stepped.late:
                    break
            steps = max(1, self.state.step)
            self.state = replace(self.state, epoch=epoch)
            self._validated(self.state.next_item / steps, self.state.consistency / steps)
        return Outcome("finished", ended)

    def _ended_by(self) -> str:
        """The field of the recipe that ends training here; empty if training goes on. The same in every process."""
        state, options = self.state, self.options
        if state.step == 0 and state.epoch - state.best >= options.patience:
            return "patience"
        if state.step == 0 and state.epoch >= options.max_epochs:
            return "max_epochs"
        return "max_seconds" if self.fabric.broadcast(self._late()) else ""

    def _late(self) -> bool:
        """Whether there is no time left for more than a validation."""
        limit = self.options.max_seconds
        return limit is not None and self._elapsed_s() + 1.1 * self.state.validation_s >= limit

    def _elapsed_s(self) -> float:
        return self.earlier_s + self.job.clock() - self.began

    def _step(self, batch: Batch | None, epoch: int, steps: int) -> _Stepped:
        """Learn from one batch; None where no position of it has a target."""
        state = self.state
        losses = _Losses() if batch is None else self._learn(batch, epoch)
        flags = self._of_any_process(
            _Flags(diverged=not np.isfinite(losses).all(), signalled=bool(self.caught), late=self._late())
        )
        if flags.diverged:
            detail = (
                f"epoch {epoch}, step {state.step + 1}: the loss is not a number: next item {losses.next_item:g}, "
                f"consistency {losses.consistency:g}, norm of the gradient {losses.gradient_norm:g}"
            )
            return _Stepped(Outcome("diverged", detail))
        if batch is not None:
            self.optimizer.step()
        self.state = state = replace(
            state,
            step=state.step + 1,
            next_item=state.next_item + losses.next_item,
            consistency=state.consistency + losses.consistency,
            learned_steps=state.learned_steps + 1,
            samples=state.samples + (0 if batch is None else len(batch)),
        )
        if self.reporter is not None:
            scalars = {
                "loss/next_item": losses.next_item,
                "loss/consistency": losses.consistency,
                "gradient_norm": losses.gradient_norm,
                "lr": self._lr(state.learned_steps),
            }
            mean = state.next_item / state.step
            self.reporter.step(state.learned_steps, scalars, self._elapsed_s(), epoch - 1 + state.step / steps, mean)
        if flags.signalled:
            self._save()
            number = self.caught[0] if self.caught else signal.SIGINT
            return _Stepped(Outcome("interrupted", f"{signal.Signals(number).name} in {self.state.reached}", number))
        if self.job.clock() - self.saved > 60.0 * self.options.checkpoint_minutes:
            self._save()
        return _Stepped(late=flags.late)

    def _learn(self, batch: Batch, epoch: int) -> _Losses:
        """Compute the gradient of a batch, clipped; it is left with the parameters."""
        mine, weight = share(batch, self.fabric.global_rank, self.fabric.world_size)
        # So the random numbers of torch depend on the step alone, and a checkpoint need not keep their state.
        entropy = [self.options.seed, epoch, self.state.step, self.fabric.global_rank]
        torch.manual_seed(int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> 1))
        for group in self.optimizer.param_groups:
            group["lr"] = self._lr(self.state.learned_steps + 1)
        self.optimizer.zero_grad()
        items, targets, negatives, times = (
            None if rows is None else torch.from_numpy(rows).to(self.fabric.device)
            for rows in (mine.items, mine.targets, mine.negatives, mine.times)
        )
        total, next_item, consistency = self.objective(items, targets, negatives, times)
        # Gradients of processes are averaged. Weighted by their numbers of targets, this is the mean over the batch.
        self.fabric.backward(total * weight)
        norm = self.fabric.clip_gradients(
            self.objective, self.optimizer, max_norm=self.options.clip, error_if_nonfinite=False
        )
        assert norm is not None
        share_of_batch = weight / self.fabric.world_size
        next_item_mean, consistency_mean = self._summed(
            [float(loss.detach()) * share_of_batch for loss in (next_item, consistency)]
        )
        return _Losses(next_item_mean, consistency_mean, float(norm))

    def _of_any_process(self, flags: _Flags) -> _Flags:
        return _Flags(*(number > 0 for number in self._summed([float(flag) for flag in flags])))

    def _summed(self, values: Sequence[float]) -> list[float]:
        """The sums of values over all processes."""
        if self.fabric.world_size == 1:
            return list(values)
        reduced = self.fabric.all_reduce(torch.tensor(values).to(self.fabric.device), reduce_op="sum")
        assert isinstance(reduced, Tensor)
        summed: list[float] = reduced.double().cpu().tolist()
        return summed

    def _lr(self, step: int) -> float:
        """The learning rate of step 1, 2, …"""
        return self.options.lr * min(1.0, step / max(1, self.options.warm_up_steps))

    def _validated(self, next_item: float | None, consistency: float | None) -> None:
        """End an epoch: add its metrics to the curve, keep its weights if they are the best, write a checkpoint."""
        before = self.job.clock()
        metrics = self.fabric.broadcast(self._metrics() if self.fabric.is_global_zero else None)
        assert metrics is not None
        state = self.state
        epoch = Epoch(state.epoch, next_item, consistency, metrics)
        better = not state.curve or metrics.ndcg_at_10 > state.best_metrics.ndcg_at_10
        self.state = state = replace(
            state,
            curve=(*state.curve, epoch),
            best=epoch.number if better else state.best,
            best_weights=_weights(self.network) if better and self.fabric.is_global_zero else state.best_weights,
            step=0,
            next_item=0.0,
            consistency=0.0,
            validation_s=self.job.clock() - before,
        )
        self._save()
        if self.reporter is not None:
            self.reporter.epoch(epoch, state.curve[state.best], state.learned_steps, self._elapsed_s())
        logger.debug("epoch %d: %s", epoch.number, epoch)

    def _metrics(self) -> Metrics:
        self.network.eval()
        device = self.fabric.device
        with torch.device(device):
            serving = kinds.serving(self.network, torch.from_numpy(self.data.popularity).to(device))
            return validation.evaluate(serving, self.data, self.targets)

    def _save(self) -> None:
        if not self.fabric.is_global_zero:
            return
        self.state = replace(
            self.state,
            network=_weights(self.network),
            optimizer=self.optimizer.optimizer.state_dict(),
            elapsed_s=self._elapsed_s(),
        )
        checkpoints.write(self.state, self.job.checkpoint)
        self.saved = self.job.clock()


def windows(data: dataset.Dataset, shape: Shape, options: TrainingOptions) -> Windows:
    """How batches are cut with these options."""
    return Windows(
        dataset=data,
        segment_length=shape.segment_length,
        segments=shape.segments,
        batch=options.batch,
        placed=options.windows,
        oov_share=options.oov_share,
        negatives=options.negatives,
        negative_mode=options.negative_mode,
        seed=options.seed,
    )


class _Objective(nn.Module):
    """The losses as a module's forward pass, which is what Fabric wraps: total, next item, consistency."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, items: Tensor, targets: Tensor, negatives: Tensor, times: Tensor | None) -> Tensor:
        found = self.network.losses(items, targets, negatives, times)
        return torch.stack([found.total, found.next_item, found.consistency])


def _weights(network: nn.Module) -> Weights:
    return {name: tensor.detach().cpu().clone() for name, tensor in network.state_dict().items()}


def _parameter_groups(network: nn.Module, options: TrainingOptions) -> list[dict[str, Any]]:
    """Weight decay for linear maps and tables; not for biases, norms, positions and the vectors of a memory."""
    decayed: list[Tensor] = [
        module.weight for module in network.modules() if isinstance(module, nn.Linear | nn.Embedding)
    ]
    ids = {id(parameter) for parameter in decayed}
    rest = [parameter for parameter in network.parameters() if id(parameter) not in ids]
    return [{"params": decayed, "weight_decay": options.weight_decay}, {"params": rest, "weight_decay": 0.0}]


def first_checkpoint(training: dict[str, Any], network: nn.Module) -> Checkpoint:
    """The checkpoint before the first step."""
    weights = _weights(network)
    return Checkpoint(
        training=training,
        network=weights,
        optimizer={},
        epoch=0,
        step=0,
        next_item=0.0,
        consistency=0.0,
        learned_steps=0,
        samples=0,
        elapsed_s=0.0,
        validation_s=0.0,
        curve=(),
        best=0,
        best_weights=weights,
    )
