"""An event log in, a new model version in the registry out.

The clock and the progress bar are arguments. Randomness comes from one seed: the same log, options and thread count give the same weights,
unless `max_seconds` cuts training short.
"""

import copy
import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import polars as pl
import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from torch import Tensor, nn

from model import artifact, dataset, kinds, validation
from model.dataset import Dataset, Rows, Windows
from model.errors import TrainingDiverged, TrainingImpossible
from model.manifest import Manifest, Metrics, Training, memory_format
from model.network import Network, NetworkConfig, initialise
from model.registry import ModelVersion, Registry
from model.validation import Targets

logger = logging.getLogger(__name__)

WARM_UP_STEPS = 100
CLIP_NORM = 1.0
BETAS = (0.9, 0.98)
WEIGHT_DECAY = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainOptions:
    """What to train and for how long; the defaults suit a log like MovieLens-1M.

    A training window is `segments` · `segment_length` interactions, and a batch has about `batch` of them. `until_share` keeps the later
    part of the log out of training and validation altogether; `validation_share` of what is left, its end, is for choosing the epoch.
    `oov_share` of the inputs stand in for unknown items. `max_seconds` is wall time, validation included.
    """

    name: str = "rec2pm"
    segment_length: int = 50
    segments: int = 4
    d: int = 64
    layers: int = 2
    heads: int = 4
    slots: int = 4
    kind: str = "rec2pm-o"
    backbone: str = "sasrec"
    dropout: float = 0.2
    con_weight: float = 1.0
    max_epochs: int = 100
    max_seconds: float | None = None
    patience: int = 10
    batch: int = 32
    negatives: int = 512
    lr: float = 1e-3
    seed: int = 0
    min_item_count: int = 5
    oov_share: float = 0.01
    until_share: float = 1.0
    validation_share: float = 0.1
    validation_targets: int = 2_000

    def __post_init__(self) -> None:
        for name in ("segments", "max_epochs", "patience", "batch", "negatives", "min_item_count", "validation_targets"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, must be at least 1")
        if self.segments < 2:
            raise ValueError(f"segments is {self.segments}, must be at least 2: with one, nothing is ever folded in training")
        if not (0.0 < self.until_share <= 1.0 and 0.0 < self.validation_share < 1.0 and 0.0 <= self.oov_share < 1.0):
            raise ValueError("until_share must be in (0, 1], validation_share in (0, 1) and oov_share in [0, 1)")
        if self.lr <= 0.0 or (self.max_seconds is not None and self.max_seconds <= 0.0):
            raise ValueError("lr and max_seconds must be positive")


def progress_bar() -> Progress:
    """Where `train` reports to on a terminal: stderr."""
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[metrics]}"), TimeElapsedColumn())
    return Progress(*columns, console=Console(stderr=True))


def train(
    log: pl.LazyFrame,
    registry: Registry,
    options: TrainOptions,
    *,
    log_name: str,
    program_version: str,
    clock: Callable[[], float],
    progress: Progress | None = None,
) -> ModelVersion:
    """Train on a log and add the best epoch to the registry as a new version.

    Args:
        log: `user_id`, `item_id`, `timestamp` (ms), as `model.log.read_log` gives it.
        log_name: what the manifest calls the log; of a path, only the last part is kept.
        clock: monotonic seconds.
        progress: where to report; None is silent.

    Raises:
        TrainingImpossible: nothing useful can be learned from this log under these options.
        TrainingDiverged: the loss stopped being a number.
    """
    began = clock()
    data = dataset.load(
        log, until_share=options.until_share, validation_share=options.validation_share, min_item_count=options.min_item_count
    )
    _check(data, options)
    config = NetworkConfig(
        n_items=len(data.item_ids),
        segment_length=options.segment_length,
        d=options.d,
        layers=options.layers,
        heads=options.heads,
        slots=options.slots,
        kind=options.kind,
        backbone=options.backbone,
        segments=options.segments,
        dropout=options.dropout,
        con_weight=options.con_weight,
    )
    # Dropout draws from torch's global generator: seeded for this run, and the caller's put back.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        best = _fit(data, config, options, _Timer(clock, began, options.max_seconds), progress)
    serving = kinds.serving(best.network, torch.from_numpy(data.popularity))
    spec = serving.spec()
    sha256 = artifact.weights_sha256(serving)
    trained = int(data.trained.sum())
    manifest = Manifest(
        name=options.name,
        version="",
        kind=config.kind,
        memory_format=memory_format(config.kind, serving.initial_memory(1).shape[1:], sha256),
        segment_length=config.segment_length,
        state_floats=spec["state_floats"],
        n_items=config.n_items,
        config={"network": asdict(config), "options": asdict(options)},
        training=Training(
            log=log_name.rstrip("/").rsplit("/", 1)[-1],
            rows=trained,
            users=int((data.trained > 0).sum()),
            items=config.n_items,
            from_ms=data.from_ms,
            until_ms=data.until_ms,
            split=f"by time: the first {options.until_share:.0%} of the log, its last {options.validation_share:.0%} for validation",
            seed=options.seed,
            epochs=best.epochs,
            best_epoch=best.epoch,
            wall_s=round(clock() - began, 1),
            samples=best.samples,
        ),
        metrics=best.metrics,
        weights_sha256=sha256,
        program_version=program_version,
        torch_version=str(torch.__version__),
    )
    version = registry.add(serving, manifest, data.item_ids)
    logger.info("trained %s in %.0f s: %s", version.reference, clock() - began, best.metrics)
    return version


@dataclass(frozen=True, slots=True)
class _Best:
    """The best epoch so far; `epochs` and `samples` count all of them."""

    network: Network
    metrics: Metrics
    epoch: int
    epochs: int
    samples: int


@dataclass(frozen=True, slots=True)
class _Timer:
    clock: Callable[[], float]
    began: float
    max_seconds: float | None

    def elapsed(self) -> float:
        return self.clock() - self.began

    def leaves(self, seconds: float) -> bool:
        """Whether that much time is left."""
        return self.max_seconds is None or self.elapsed() + seconds < self.max_seconds


def _check(data: Dataset, options: TrainOptions) -> None:
    longest = int(data.trained.max())
    if longest <= options.segment_length:
        median = int(np.median(data.trained[data.trained > 0]))
        raise TrainingImpossible(
            f"no user has more than {options.segment_length} interactions before validation (the longest has {longest}, half of the users "
            f"{median} or more), so nothing would ever be folded; --segment-length {max(2, min(longest - 1, median // 2))} would work"
        )


def _fit(data: Dataset, config: NetworkConfig, options: TrainOptions, timer: _Timer, progress: Progress | None) -> _Best:
    """Epochs until the time is up, they are all done, or `patience` of them brought no better NDCG@10."""
    rng = np.random.default_rng(options.seed)
    targets = validation.choose(data, rng, options.validation_targets, config.segment_length)
    if len(targets.user) == 0:
        raise TrainingImpossible("nobody in the validation part has a history to predict from; a larger --validation-share may help")
    network = kinds.build(config)
    initialise(network, torch.Generator().manual_seed(options.seed))
    optimizer = torch.optim.AdamW(_parameter_groups(network), lr=options.lr, betas=BETAS, fused=True)
    warm_up = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / WARM_UP_STEPS))

    # Validated before the first step, so that there is a best epoch however little time there is, and what a validation costs is known.
    before = timer.clock()
    best = _Best(copy.deepcopy(network), _validate(network, data, targets), 0, 0, 0)
    validation_s = timer.clock() - before
    samples, epoch = 0, 0
    with progress or Progress(disable=True) as bar:
        task = bar.add_task("training", total=options.max_seconds or options.max_epochs, metrics=_in_words(best, best.metrics))
        while epoch < options.max_epochs and epoch - best.epoch < options.patience and timer.leaves(1.1 * validation_s):
            epoch += 1
            network.train()
            network.stage(epoch)
            for batch in _batches(data, rng, options):
                _step(network, optimizer, batch, rng.integers(1, config.n_items + 1, options.negatives), epoch)
                warm_up.step()
                samples += len(batch.items)
                bar.update(task, completed=timer.elapsed() if options.max_seconds else epoch - 1)
                if not timer.leaves(1.1 * validation_s):
                    break
            metrics = _validate(network, data, targets)
            if metrics.ndcg_at_10 > best.metrics.ndcg_at_10:
                best = _Best(copy.deepcopy(network), metrics, epoch, epoch, samples)
            bar.update(task, completed=timer.elapsed() if options.max_seconds else epoch, metrics=_in_words(best, metrics))
            logger.debug("epoch %d: %s", epoch, metrics)
    return replace(best, epochs=epoch, samples=samples)


def _batches(data: Dataset, rng: np.random.Generator, options: TrainOptions) -> Iterator[Windows]:
    return dataset.epoch(
        data,
        rng,
        segment_length=options.segment_length,
        segments=options.segments,
        batch=options.batch,
        oov_share=options.oov_share,
    )


def _step(network: Network, optimizer: torch.optim.Optimizer, batch: Windows, negatives: Rows, epoch: int) -> None:
    optimizer.zero_grad()
    found = network.losses(torch.from_numpy(batch.items), torch.from_numpy(batch.targets), torch.from_numpy(negatives))
    if not math.isfinite(found.total.item()):
        raise TrainingDiverged(
            f"epoch {epoch}: the loss is {found.total.item()} (next item {found.next_item.item()}, "
            f"consistency {found.consistency.item()}); a lower --lr may help"
        )
    found.total.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(network.parameters(), CLIP_NORM)
    optimizer.step()


def _validate(network: Network, data: Dataset, targets: Targets) -> Metrics:
    network.eval()
    return validation.evaluate(kinds.serving(network, torch.from_numpy(data.popularity)), data, targets)


def _parameter_groups(network: Network) -> list[dict[str, Any]]:
    """Weight decay for linear maps and the item table; not for biases, norms, positions and the memory's vectors."""
    decayed: list[Tensor] = [module.weight for module in network.modules() if isinstance(module, nn.Linear | nn.Embedding)]
    ids = {id(parameter) for parameter in decayed}
    rest = [parameter for parameter in network.parameters() if id(parameter) not in ids]
    return [{"params": decayed, "weight_decay": WEIGHT_DECAY}, {"params": rest, "weight_decay": 0.0}]


def _in_words(best: _Best, metrics: Metrics) -> str:
    known = best.metrics
    return f"HR@10 {metrics.hr_at_10:.3f}, best {known.hr_at_10:.3f} in epoch {best.epoch}, popularity {known.popularity_hr_at_10:.3f}"
