"""Runs tasks in processes of this machine, or on a Ray cluster. The results do not depend on where."""

import multiprocessing
import os
import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from pathlib import Path
from typing import Any

from stream.errors import ReplayFailed
from stream.replay.task import Task

Heard = Callable[[int], None]
"""Called with a number of interactions that were replayed since the call before."""


def run_task(task: Task, heard: Heard) -> None:
    """Replay one shard to its end, from where an earlier process left it. Nothing happens if it is done."""
    from stream.replay.finish import done, finish
    from stream.replay.shard import Shard
    from stream.torch_threads import one_thread

    if done(Path(task.out)) is not None:
        return
    one_thread()
    with closing(Shard.open(task)) as shard:
        shard.run(heard)
        finish(shard)


def run_in_this_process(tasks: Sequence[Task], heard: Heard) -> None:
    """Run tasks one after the other, without another process."""
    for task in tasks:
        run_task(task, heard)


def run_here(tasks: Sequence[Task], jobs: int, heard: Heard) -> None:
    """Run tasks in so many processes.

    Raises:
        ReplayFailed: a process was killed.
        What a task raises.
    """
    context = multiprocessing.get_context("spawn")  # torch and RocksDB have threads, which a fork would not copy
    done = context.Queue()
    pool = ProcessPoolExecutor(jobs, context, initializer=_begin, initargs=(done,))
    try:
        left = {pool.submit(_run, task) for task in tasks}
        while left:
            ended, left = wait(left, timeout=0.2, return_when=FIRST_COMPLETED)
            _hear(done, heard)
            for future in ended:
                future.result()
    except BrokenProcessPool as error:
        raise ReplayFailed(
            "a process of the replay was killed, perhaps because memory was short: fewer --jobs need less. The same command goes on "
            "where it was"
        ) from error
    except BaseException:
        # A part may take hours, and nobody wants to wait for it who stops a replay. The next run goes on where it was.
        for process in multiprocessing.active_children():
            process.kill()
        raise
    finally:
        pool.shutdown(cancel_futures=True)
    _hear(done, heard)


_done: Any = None


def _begin(done: Any) -> None:
    global _done  # a process of the pool has one queue
    _done = done
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A process whose parent was killed would go on, and hold the store that the next run goes on with."""
    if (parent := multiprocessing.parent_process()) is not None:
        parent.join()
        os._exit(1)


def _run(task: Task) -> None:
    run_task(task, _done.put)


def _hear(done: Any, heard: Heard) -> None:
    while True:
        try:
            heard(done.get_nowait())
        except queue.Empty:
            return
