"""The loop: going on after any interruption, several processes, what stops it."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from torch.multiprocessing.spawn import ProcessExitedException

from model.errors import TrainingDiverged, TrainingInterrupted, TrainingProcessLost, TrainingUnfinished
from model.networks import kinds
from model.networks.kinds import KINDS
from model.networks.network import Losses
from model.networks.rec2pm import Rec2PM
from model.training import checkpoint, fit
from model.training.checkpoint import Checkpoint, Epoch
from model.training.windows import Batch, share
from model.version.registry import Registry
from model.version.runtime import Runtime
from stream.commands.command_line import REC2PM
from stream.commands.main import main
from tests.model import tiny
from tests.model.quick import LOG, SMALL, recipe, run

FAST: dict[str, Any] = {"max_epochs": 4, "batch": 8}


@contextmanager
def _watched() -> Iterator[list[Checkpoint]]:
    """The last checkpoint of every training that finishes."""
    seen: list[Checkpoint] = []
    discard = checkpoint.TrainingFolder.discard

    def watched(self: checkpoint.TrainingFolder) -> None:
        if self.unfinished():
            seen.append(checkpoint.read(self.checkpoint))
        discard(self)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(checkpoint.TrainingFolder, "discard", watched)
        yield seen


@pytest.fixture
def finished() -> Iterator[list[Checkpoint]]:
    with _watched() as seen:
        yield seen


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Checkpoint]:
    """A training that nothing interrupts: the hash of its weights, and its last checkpoint."""
    with _watched() as seen:
        version = run(tmp_path_factory.mktemp("whole"), **FAST)
    return version.manifest().weights_sha256, seen[0]


def _unfinished(root: Path, name: str = "small") -> Path:
    return root / ".training" / name / "checkpoint.pt"


class Killed(BaseException):
    """As the end of the process would be: nothing catches it, nothing is written."""


def _killed_at(steps: int) -> Callable[..., Losses]:
    """Losses of the first so many steps."""
    losses, counted = Rec2PM.losses, iter(range(steps))

    def some(self: Rec2PM, *batch: torch.Tensor) -> Losses:
        if next(counted, None) is None:
            raise Killed
        return losses(self, *batch)

    return some


@pytest.mark.parametrize(("steps", "minutes"), [(0, 1e-9), (1, 1e-9), (13, 1e-9), (25, 1e-9), (13, 1e9), (40, 1e9)])
def test_training_that_was_killed_goes_on_to_the_same_weights_and_curve(
    tmp_path: Path, whole: tuple[str, Checkpoint], finished: list[Checkpoint], steps: int, minutes: float
) -> None:
    """With a checkpoint after every step, and with one after every epoch only."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Rec2PM, "losses", _killed_at(steps))
        with pytest.raises(Killed):
            run(tmp_path, checkpoint_minutes=minutes, **FAST)
    there = checkpoint.read(_unfinished(tmp_path))
    assert there.learned_steps == steps if minutes < 1 else there.step == 0
    torch.manual_seed(99)
    resumed = run(tmp_path, how={"unfinished": "resume"}, checkpoint_minutes=minutes, **FAST)
    (last,) = finished
    sha256, expected = whole
    assert resumed.manifest().weights_sha256 == sha256
    assert last.curve == expected.curve
    assert len(last.curve) == 5
    assert (last.samples, last.learned_steps) == (expected.samples, expected.learned_steps)
    assert not (tmp_path / ".training").exists()


def _command(folder: Path, *more: str) -> list[str]:
    settings = [part for each in (*SMALL, *more) for part in ("--set", each)]
    return ["train", str(folder / "log.parquet"), "--out", str(folder / "cut"), *settings]


def test_a_process_killed_with_sigkill_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    LOG.write_parquet(tmp_path / "log.parquet")
    command = _command(tmp_path, "max_epochs=6", "batch=8", "checkpoint_minutes=1e-9")
    place = _unfinished(tmp_path / "cut", "rec2pm")
    with subprocess.Popen([*REC2PM, *command], stderr=subprocess.PIPE) as process:
        while process.poll() is None and not (place.exists() and checkpoint.read(place).learned_steps > 20):
            time.sleep(0.01)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    with pytest.raises(SystemExit) as refused:
        main.main(command)
    assert refused.value.code == 2
    with pytest.raises(SystemExit) as done:
        main.main([*command, "--resume"])
    assert done.value.code == 0
    whole = run(tmp_path / "whole", max_epochs=6, batch=8)
    assert Registry(tmp_path / "cut").resolve(None).manifest().weights_sha256 == whole.manifest().weights_sha256


def test_sigterm_leaves_a_checkpoint_and_says_how_to_go_on(tmp_path: Path) -> None:
    LOG.write_parquet(tmp_path / "log.parquet")
    command = [*REC2PM, *_command(tmp_path, "max_epochs=100000", "patience=100000")]
    place = _unfinished(tmp_path / "cut", "rec2pm")
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        while process.poll() is None and not (place.exists() and checkpoint.read(place).epoch > 0):
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=30)
    assert process.returncode == 0, said
    assert "stopped by SIGTERM in " in said
    assert "--resume continues there" in said
    assert place.exists()
    assert not (tmp_path / "cut" / ".training" / "rec2pm" / "data").exists()


def test_a_signal_ends_training_after_the_step(tmp_path: Path) -> None:
    losses = Rec2PM.losses

    def interrupted(self: Rec2PM, *batch: torch.Tensor) -> Losses:
        os.kill(os.getpid(), signal.SIGINT)
        return losses(self, *batch)

    before = signal.getsignal(signal.SIGINT)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Rec2PM, "losses", interrupted)
        with pytest.raises(
            TrainingInterrupted, match=r"SIGINT in epoch 1, step 1\. The same command with --resume"
        ) as caught:
            run(tmp_path)
        LOG.write_parquet(tmp_path / "log.parquet")
        with pytest.raises(SystemExit) as ended:
            main.main(_command(tmp_path))
    assert caught.value.signal == signal.SIGINT
    assert ended.value.code == 130
    assert signal.getsignal(signal.SIGINT) is before
    assert checkpoint.read(_unfinished(tmp_path)).learned_steps == 1


def test_a_loss_that_is_no_number_keeps_the_last_good_checkpoint_to_go_on_from(tmp_path: Path) -> None:
    losses, counted = Rec2PM.losses, iter(range(15))

    def spoilt(self: Rec2PM, *batch: torch.Tensor) -> Losses:
        found = losses(self, *batch)
        return (
            found
            if next(counted, None) is not None
            else Losses(found.total * float("inf"), found.next_item, found.consistency)
        )

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Rec2PM, "losses", spoilt)
        with pytest.raises(
            TrainingDiverged,
            match=r"epoch 2, step \d+: the loss is not a number: .* at the end of epoch 1, is in .*--resume",
        ):
            run(tmp_path, **FAST)
    kept = checkpoint.read(_unfinished(tmp_path))
    assert all(torch.isfinite(weight).all() for weight in kept.network.values())
    version = run(tmp_path, how={"unfinished": "resume"}, **(FAST | {"lr": 1e-4}))
    training = version.manifest().training
    assert training is not None
    assert training.epochs == 4


def test_the_best_epoch_is_kept_not_the_last(
    tmp_path: Path, finished: list[Checkpoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    metrics = fit._Fit._metrics
    order = iter([0.1, 0.2, 0.5, 0.3, 0.4])
    seen: list[float] = []

    def scripted(self: Any) -> Any:
        found = metrics(self)
        seen.append(float(self.network.item.weight.detach().sum()))
        return type(found)(targets=9, hr_at_10=0.1, ndcg_at_10=next(order), popularity_hr_at_10=0.1)

    monkeypatch.setattr(fit._Fit, "_metrics", scripted)
    manifest = run(tmp_path, **FAST).manifest()
    assert manifest.training is not None
    assert manifest.metrics is not None
    assert (manifest.training.best_epoch, manifest.training.epochs, manifest.metrics.ndcg_at_10) == (2, 4, 0.5)
    (last,) = finished
    assert float(last.best_weights["item.weight"].sum()) == pytest.approx(seen[2])
    assert float(last.network["item.weight"].sum()) == pytest.approx(seen[4])


def test_only_one_process_trains_a_name(tmp_path: Path) -> None:
    with (
        checkpoint.held(tmp_path, "small"),
        pytest.raises(TrainingUnfinished, match="another process is training 'small'"),
    ):
        run(tmp_path)
    run(tmp_path, max_epochs=1)


def test_an_unfinished_training_is_neither_overwritten_nor_continued_as_another(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Rec2PM, "losses", _killed_at(13))
        with pytest.raises(Killed):
            run(tmp_path, **FAST)
    with pytest.raises(
        TrainingUnfinished, match="an earlier training of 'small' stopped at the end of epoch 1: --resume"
    ):
        run(tmp_path, **FAST)
    with pytest.raises(
        TrainingUnfinished,
        match=r"training\.oov_share was 0.01 and is 0.1; training\.seed was 0 and is 1\. --resume needs the same log",
    ):
        run(tmp_path, how={"unfinished": "resume"}, **(FAST | {"seed": 1, "oov_share": 0.1}))
    with pytest.raises(TrainingUnfinished, match="log_sha256 was"):
        run(tmp_path, LOG.head(3000), how={"unfinished": "resume"}, **FAST)
    assert checkpoint.read(_unfinished(tmp_path)).epoch == 1
    run(tmp_path, how={"unfinished": "discard"}, seed=1, max_epochs=1)
    assert not _unfinished(tmp_path).exists()


def test_a_checkpoint_with_the_fields_of_every_kind_is_gone_on_from(tmp_path: Path) -> None:
    """As earlier builds wrote it."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Rec2PM, "losses", _killed_at(13))
        with pytest.raises(Killed):
            run(tmp_path, **FAST)
    there = checkpoint.read(_unfinished(tmp_path))
    network = {**there.training["network"], "curriculum_epochs": 2, "state_size": 16, "rel_bias": "none"}
    checkpoint.write(replace(there, training={**there.training, "network": network}), _unfinished(tmp_path))
    assert run(tmp_path, how={"unfinished": "resume"}, **FAST).version == 1


@pytest.mark.parametrize("content", [b"", b"torn", b"PK\x03\x04"])
def test_a_file_that_is_no_checkpoint_is_said(tmp_path: Path, content: bytes) -> None:
    place = _unfinished(tmp_path)
    place.parent.mkdir(parents=True)
    place.write_bytes(content)
    with pytest.raises(TrainingUnfinished, match="not a checkpoint"):
        run(tmp_path, how={"unfinished": "resume"})


def test_two_processes_learn_what_one_does(tmp_path: Path, finished: list[Checkpoint]) -> None:
    """Without dropout, which draws differently in each process."""
    alike = {"dropout": 0.0, "oov_share": 0.1, "max_epochs": 3, "batch": 6}
    run(tmp_path / "one", how={"clock": time.monotonic}, **alike)
    run(tmp_path / "two", how={"clock": time.monotonic, "devices": 2}, **alike)
    one, two = finished
    assert (one.learned_steps, one.samples) == (two.learned_steps, two.samples)
    for a, b in zip(_losses(one), _losses(two), strict=True):
        np.testing.assert_allclose(a, b, rtol=5e-3)
    assert one.curve[-1].metrics.ndcg_at_10 == pytest.approx(two.curve[-1].metrics.ndcg_at_10, abs=0.01)


def test_a_process_that_is_gone_is_said_and_training_goes_on_from_the_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(self: Any, *_: Any) -> Any:
        raise ProcessExitedException("process 1 terminated with signal SIGKILL", 1, 4711, -9)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(fit.Fabric, "launch", gone)
        with pytest.raises(
            TrainingProcessLost,
            match=r"one of 2 .* has ended: process 1 terminated with signal SIGKILL\. --resume continues at the end of",
        ):
            run(tmp_path, how={"devices": 2})
    assert run(tmp_path, how={"unfinished": "resume"}, max_epochs=1).version == 1


def _losses(last: Checkpoint) -> Iterator[tuple[float, ...]]:
    for epoch in last.curve[1:]:
        assert epoch.next_item is not None
        yield (epoch.next_item,)


def test_every_window_is_one_processs_and_weights_add_up() -> None:
    rng = np.random.default_rng(0)
    for windows in range(1, 7):
        items, targets = rng.integers(1, 9, (windows, 4)), rng.integers(0, 3, (windows, 4))
        targets[:, 0] = 1
        batch = Batch(items, targets, rng.integers(1, 9, (windows, 4, 2)), np.pad(items, ((0, 0), (0, 1))))
        parts = [share(batch, rank, 3) for rank in range(3)]
        mean = sum(weight * float(part.items[part.targets != 0].mean()) for part, weight in parts) / 3
        assert mean == pytest.approx(items[targets != 0].mean())
        assert sum(len(part) for part, weight in parts if weight) == windows
        assert all(len(part.negatives) == len(part.items) >= 1 for part, _ in parts)
        assert all(part.times is not None and (part.times[:, :-1] == part.items).all() for part, _ in parts)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_learns_from_one_processs_share_of_a_batch(kind: str) -> None:
    backbone = "none" if kind == "holomambarec" else "sasrec"
    network = tiny.network(config=tiny.config(kind, backbone))
    rng = np.random.default_rng(0)
    batch = Batch(*rng.integers(1, 60, (2, 6, 36)), rng.integers(1, 60, (6, 36, 3)))
    part, _ = share(batch, 1, 2)
    alone = [torch.from_numpy(rows[1::2].copy()) for rows in (batch.items, batch.targets, batch.negatives)]
    found = network.losses(*(torch.from_numpy(rows) for rows in (part.items, part.targets, part.negatives)))
    torch.testing.assert_close(found.total, network.losses(*alone).total)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_trained_and_served(tmp_path: Path, kind: str) -> None:
    version = run(tmp_path, kind=kind, max_epochs=1, negative_mode="position", negatives=8)
    manifest = version.manifest()
    runtime = Runtime.load(version.folder)
    assert manifest.kind == kind
    folded = runtime.fold(
        np.zeros((1, runtime.state_floats), np.float32), np.arange(1, runtime.segment_length + 1)[None]
    )
    assert np.isfinite(runtime.rank(folded.hidden, 5, np.zeros((1, 0), np.int64)).scores).all()


def test_a_network_that_goes_by_time_learns_from_the_times_of_its_log(
    tmp_path: Path, finished: list[Checkpoint]
) -> None:
    later = LOG.with_columns(timestamp=pl.col("timestamp") * 50)
    how = {"kind": "full", "backbone": "hstu", "max_epochs": 1}
    for name, log, bias in (
        ("plain", LOG, "pos_time"),
        ("later", later, "pos_time"),
        ("pos", LOG, "pos"),
        ("pos-later", later, "pos"),
    ):
        version = run(tmp_path / name, log, rel_bias=bias, **how)
        assert Runtime.load(version.folder).uses_time == (bias == "pos_time")
    plain, apart, pos, pos_apart = (last.curve[-1].next_item for last in finished)
    assert plain != apart
    assert pos == pos_apart


def test_bfloat16_is_a_field_of_the_recipe(tmp_path: Path, finished: list[Checkpoint]) -> None:
    for precision in ("32-true", "bf16-mixed"):
        run(tmp_path / precision, precision=precision, max_epochs=2)
    full, half = (last.curve[-1].next_item for last in finished)
    assert full != half
    assert full == pytest.approx(half, rel=0.1)


def test_stages_are_told_their_epoch_also_after_a_resume(tmp_path: Path) -> None:
    told: list[int] = []
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Rec2PM, "stage", lambda self, epoch: told.append(epoch))
        with pytest.MonkeyPatch.context() as killed:
            killed.setattr(Rec2PM, "losses", _killed_at(15))
            with pytest.raises(Killed):
                run(tmp_path, checkpoint_minutes=1e-9, **FAST)
        run(tmp_path, how={"unfinished": "resume"}, checkpoint_minutes=1e-9, **FAST)
    assert told == [1, 2, 2, 3, 4]


def test_weights_that_decay_are_maps_and_tables(tmp_path: Path) -> None:
    network = kinds.build(recipe().config(10))
    decayed, rest = fit._parameter_groups(network, recipe().training)
    assert (decayed["weight_decay"], rest["weight_decay"]) == (0.1, 0.0)
    named = {id(parameter): name for name, parameter in network.named_parameters()}
    assert {named[id(p)] for p in rest["params"]} >= {"position", "slot", "write", "norm.weight", "blocks.0.qkv.bias"}
    assert {named[id(p)] for p in decayed["params"]} >= {"item.weight", "blocks.0.qkv.weight"}
    assert len(decayed["params"]) + len(rest["params"]) == len(named)


def test_an_epoch_survives_the_checkpoint_file(tmp_path: Path, finished: list[Checkpoint]) -> None:
    run(tmp_path, max_epochs=1)
    (last,) = finished
    assert [type(epoch) for epoch in last.curve] == [Epoch, Epoch]
    checkpoint.write(last, tmp_path / "again.pt")
    assert checkpoint.read(tmp_path / "again.pt").curve == last.curve
    assert [path.name for path in tmp_path.glob("again*")] == ["again.pt"]
