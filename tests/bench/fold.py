"""What a fold and a recommendation cost, and what encoding the whole history would, in one process on one thread.

`python -m tests.bench.fold` prints a table; `measure()` returns it. Full is the model of that kind, an artifact like the other: causal attention
over 1,003 items with global positions, only the last row in the last block, rows padded to the kernel's favourite multiple.
"""

import ctypes
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from model import artifact, kinds
from model.artifact import Program
from model.network import NetworkConfig, initialise

SEGMENT_LENGTH = 200
WORKING = 100
HISTORY = 1_003
CATALOGUE = 3_706
K = 10

FOLD_MFLOP = 85.2
"""One fold, 208 tokens, dense attention, every row through every layer (MODEL.md §7)."""


def measure() -> dict[str, float]:
    """Median times in ms (`_ms`, per user), the GEMM peak of the same run (`peak_gflop_per_s`) and the ratios."""
    _keep_freed_memory()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            return _measure()
    finally:
        torch.set_num_threads(threads)


def _measure() -> dict[str, float]:
    generator = torch.Generator().manual_seed(0)
    config = NetworkConfig(n_items=CATALOGUE, segment_length=SEGMENT_LENGTH)
    program = _program(config, generator)
    full = _program(replace(config, kind="full", segment_length=17, segments=HISTORY // 17), generator)

    def rows(users: int, n: int) -> tuple[Tensor, Tensor, Tensor]:
        items = torch.randint(1, CATALOGUE + 1, (users, n), generator=generator)
        return torch.randn(users, config.slots, config.d, generator=generator), items, torch.full((users,), n)

    def history(users: int) -> tuple[Tensor, Tensor, Tensor]:
        items = rows(users, HISTORY)[1]
        return items.to(torch.float32), items[:, :0], torch.zeros(users, dtype=torch.int64)

    one, eight, working, whole = rows(1, SEGMENT_LENGTH), rows(8, SEGMENT_LENGTH), rows(1, WORKING), history(1)
    eight_working, eight_whole = rows(8, WORKING), history(8)
    exclude = torch.randint(1, CATALOGUE + 1, (1, 1_000), generator=generator)
    hidden = program.update(*one)[1]
    # Round by round, so that what else the machine does falls on all of them alike.
    found = _medians(
        {
            "fold_ms": (lambda: program.update(*one), 1),
            "fold_8_ms": (lambda: program.update(*eight), 8),
            "recommend_ms": (lambda: program.recommend(*working, K), 1),
            "recommend_8_ms": (lambda: program.recommend(*eight_working, K), 8),
            "recommend_exclude_ms": (lambda: program.recommend(*working, K, None, None, exclude), 1),
            "rank_ms": (lambda: program.rank(hidden, K, None), 1),
            "full_ms": (lambda: full.recommend(*whole, K), 1),
            "full_8_ms": (lambda: full.recommend(*eight_whole, K), 8),
            **{f"gemm_{name}": (_gemm(*shape), 1) for name, shape in GEMMS.items()},
        },
        rounds=8,
    )
    peak = max(2 * m * n * k / found.pop(f"gemm_{name}") / 1e6 for name, (m, k, n) in GEMMS.items())
    reached = FOLD_MFLOP / found["fold_ms"]
    return {
        **found,
        "peak_gflop_per_s": peak,
        "fold_gflop_per_s": reached,
        "fold_share_of_peak": reached / peak,
        "full_per_fold": found["full_ms"] / found["fold_ms"],
        "full_per_recommend": found["full_ms"] / found["recommend_ms"],
        "full_8_per_fold_8": found["full_8_ms"] / found["fold_8_ms"],
        "full_8_per_recommend_8": found["full_8_ms"] / found["recommend_8_ms"],
        "fold_us_per_interaction": found["fold_ms"] * 1_000 / SEGMENT_LENGTH,
    }


def _program(config: NetworkConfig, generator: torch.Generator) -> Program:
    """A network as the worker has it: scripted, frozen, warm."""
    network = kinds.build(config)
    initialise(network, generator)
    program = artifact.frozen(artifact.script(kinds.serving(network, torch.rand(config.n_items + 1, generator=generator))))
    artifact.warm_up(program)
    return program


GEMMS = {"512": (512, 512, 512), "1024": (1024, 1024, 1024), "2048": (2048, 2048, 2048), "qkv": (1024, 64, 192)}
"""(m, k, n) of the matrix products whose best is the peak."""


def _gemm(m: int, k: int, n: int) -> Callable[[], Tensor]:
    a, b = torch.ones(m, k), torch.ones(k, n)
    return lambda: a @ b


def _medians(timed: dict[str, tuple[Callable[[], object], int]], rounds: int) -> dict[str, float]:
    """ms per user, the median over all rounds; a round is a few calls of each that are not counted, and then up to 30 that are."""
    taken: dict[str, list[float]] = {name: [] for name in timed}
    for _ in range(rounds):
        for name, (call, users) in timed.items():
            until = time.perf_counter() + 0.2
            for call_number in range(35):
                began = time.perf_counter()
                call()
                ended = time.perf_counter()
                if call_number >= 5:
                    taken[name].append((ended - began) * 1_000 / users)
                    if ended > until:
                        break
    return {name: statistics.median(times) for name, times in taken.items()}


def _keep_freed_memory() -> None:
    """Tell glibc not to give memory back between calls: page faults double the time of whatever allocates much, above all Full."""
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        for option, value in ((-3, 1 << 30), (-1, 1 << 30), (-2, 64 << 20)):  # M_MMAP_THRESHOLD, M_TRIM_THRESHOLD, M_TOP_PAD
            libc.mallopt(option, value)


def table(found: dict[str, float]) -> str:
    lines = [
        ("one fold, 200 items", "fold_ms"),
        ("one of eight folds together", "fold_8_ms"),
        (f"recommendation, {WORKING} items", "recommend_ms"),
        ("one of eight together", "recommend_8_ms"),
        ("the same, 1,000 items excluded", "recommend_exclude_ms"),
        ("list right after a fold", "rank_ms"),
        (f"Full recommendation, {HISTORY:,} items", "full_ms"),
        ("one of eight together", "full_8_ms"),
    ]
    text = [f"{label:<38} {found[name]:8.3f} ms" for label, name in lines]
    text.append(f"{'GEMM peak of this run':<38} {found['peak_gflop_per_s']:8.1f} GFLOP/s")
    text.append(f"{'a fold reaches':<38} {found['fold_gflop_per_s']:8.1f} GFLOP/s, {found['fold_share_of_peak']:.0%} of the peak")
    text.append(f"{'Full costs as much as':<38} {found['full_per_fold']:8.1f} folds or {found['full_per_recommend']:.1f} recommendations")
    eight = f"{found['full_8_per_fold_8']:8.1f} folds or {found['full_8_per_recommend_8']:.1f} recommendations"
    text.append(f"{'eight users together, all three':<38} {eight}")
    text.append(f"{'folding, per interaction':<38} {found['fold_us_per_interaction']:8.1f} µs")
    return "\n".join(text)


if __name__ == "__main__":
    warnings.filterwarnings("ignore", message="`torch.jit")
    print(table(measure()))
