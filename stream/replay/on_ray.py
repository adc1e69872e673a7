"""Runs tasks on a Ray cluster. Its machines need rec2pm, and no folder in common: files travel with the tasks."""

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias

import msgspec

from stream.errors import ReplayFailed
from stream.replay.finish import DONE, done
from stream.replay.pool import Heard, run_task
from stream.replay.task import Task

Files: TypeAlias = Mapping[str, bytes]
"""The files of a folder, by their names."""

_AHEAD: Final = 64
"""Tasks that are handed to the cluster at a time: their results wait in its memory."""


def run_on_ray(tasks: Sequence[Task], address: str, heard: Heard) -> None:
    """Run tasks on a cluster.

    Args:
        address: of the cluster, as `ray.init` takes it; `local` starts one for this call.

    Raises:
        ReplayFailed: the cluster cannot be reached, or a task of it failed.
    """
    import ray

    left = [task for task in tasks if done(Path(task.out)) is None]
    try:
        ray.init(address=address, log_to_driver=False, include_dashboard=False if address == "local" else None)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ReplayFailed(f"the Ray cluster {address} cannot be reached: {error}") from error
    try:
        far: Any = ray.remote(num_cpus=1, max_retries=3)(replayed_from_files)
        models = {serves.folder: ray.put(_files(Path(serves.folder))) for task in left for serves in task.serves}
        running: dict[Any, Task] = {}
        while left or running:
            while left and len(running) < _AHEAD:
                task = left.pop(0)
                versions = [models[serves.folder] for serves in task.serves]
                running[far.remote(task, Path(task.shard).read_bytes(), *versions)] = task
            (ended,), _ = ray.wait(list(running), num_returns=1)
            task = running.pop(ended)
            try:
                files, rows = ray.get(ended)
            except ray.exceptions.RayError as error:
                raise ReplayFailed(f"partition {task.partition} failed on the Ray cluster: {error}") from error
            _keep(files, Path(task.out))
            heard(rows)
    finally:
        ray.shutdown()


def replayed_from_files(task: Task, shard: bytes, *versions: Files) -> tuple[Files, int]:
    """What a machine of the cluster does: a task, from the files that it needs to those that it makes.

    Returns:
        The files, and the number of interactions.
    """
    rows = 0

    def heard(more: int) -> None:
        nonlocal rows
        rows += more

    with tempfile.TemporaryDirectory(prefix="rec2pm-replay-") as name:
        folder = Path(name)
        (folder / "shard.parquet").write_bytes(shard)
        serves = []
        for number, (each, files) in enumerate(zip(task.serves, versions, strict=True)):
            _keep(files, folder / str(number))
            serves.append(msgspec.structs.replace(each, folder=str(folder / str(number))))
        here = msgspec.structs.replace(
            task, shard=str(folder / "shard.parquet"), out=str(folder / "out"), serves=tuple(serves)
        )
        run_task(here, heard)
        return _files(folder / "out"), rows


def _files(folder: Path) -> Files:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def _keep(files: Files, folder: Path) -> None:
    """Write files; the one that says that the others are whole comes last."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name in sorted(files, key=lambda name: name == DONE):
        (folder / name).write_bytes(files[name])
