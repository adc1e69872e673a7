"""What it costs to load a version beside others: `python -m bench.loads`. Prints Markdown.

Two versions of one kind are loaded in turn, alone (`torch.jit.load`) and by way of the one before, whose compiled code
they share (docs/decisions/0025-swaps.md). *Lock* is the longest time in which another thread of the process could not
run: a worker's steps wait for so long. Resident memory is read after each tenth of the loads; each version is let go
when the next one is there.
"""

import argparse
import gc
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import torch

from bench.__main__ import machine, sasrec
from model.version.registry import Registry
from model.version.runtime import Runtime

ITEMS = 3_706
_TICK_S = 0.0002


class Ticks:
    """A thread that wants to run all the time, and notes for how long it could not."""

    def __init__(self) -> None:
        self.longest_s, self._ended = 0.0, False
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        last = time.perf_counter()
        while not self._ended:
            time.sleep(_TICK_S)
            now = time.perf_counter()
            self.longest_s = max(self.longest_s, now - last)
            last = now

    def during(self, work: Callable[[], Runtime]) -> tuple[Runtime, float, float]:
        """What `work` gives, its seconds, and the longest time without the lock."""
        time.sleep(0.02)
        self.longest_s = 0.0
        began = time.perf_counter()
        found = work()
        return found, time.perf_counter() - began, self.longest_s

    def end(self) -> None:
        self._ended = True


def loads(folders: list[str], count: int, *, shared: bool) -> tuple[list[float], list[float], list[float]]:
    """Seconds and longest locks of so many loads, and MB after each tenth of them."""
    ticks, former = Ticks(), Runtime.load(folders[0])
    seconds, locks, memory = [], [], []
    for number in range(1, count + 1):
        like = former if shared else None
        former, took, lock = ticks.during(
            lambda number=number, like=like: Runtime.load(folders[number % 2], None, like)  # type: ignore[misc]
        )
        seconds.append(took)
        locks.append(lock)
        if number % max(1, count // 10) == 0:
            gc.collect()
            memory.append(psutil.Process().memory_info().rss / 2**20)
    ticks.end()
    return seconds, locks, memory


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench.loads", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--loads", type=int, default=200)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    rows, kept = [], []
    with tempfile.TemporaryDirectory(prefix="rec2pm-bench-") as name:
        items: list[int | str] = list(range(1, ITEMS + 1))
        registry = Registry(Path(name))
        folders = [registry.resolve(sasrec(Path(name), items, 50, seed)).uri for seed in (1, 2)]
        for shared, words in ((False, "alone"), (True, "shared code")):
            seconds, locks, memory = loads(folders, asked.loads, shared=shared)
            rows.append(
                f"| {words} | {1000 * statistics.median(seconds):.0f} | {1000 * statistics.median(locks):.1f} | {1000 * max(locks):.1f} |"
            )
            kept.append(f"| {words} | {' | '.join(f'{each:.0f}' for each in memory)} |")
    tenths = range(1, len(memory) + 1)
    print("# Loads of a version\n")
    print(f"Printed by `python -m bench.loads --loads {asked.loads}`. {machine()}.\n")
    print(
        f"SASRec with 4 layers, d=64, {ITEMS:,} items; the warm-up is part of a load. Medians; the last column is the longest.\n"
    )
    print("| | ms | lock, ms | longest lock, ms |\n|---|---:|---:|---:|")
    print("\n".join(rows))
    print("\nResident memory of the process, MB:\n")
    print(f"| after loads | {' | '.join(str(each * max(1, asked.loads // 10)) for each in tenths)} |")
    print(f"|---|{'---:|' * len(memory)}")
    print("\n".join(kept))


if __name__ == "__main__":
    main()
