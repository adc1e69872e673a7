"""Cost of a fold and of a recommendation, for every kind of model, in one process on one thread.

`python -m bench.fold [--backbone hstu]` prints a table. Every kind is an artifact as the worker loads it: scripted,
frozen, with full state. Full encodes its whole history. The others fold 200 items, and recommend from their state and
100 items (the average working memory).
"""

import argparse
import ctypes
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from model.networks import kinds
from model.networks.config import NetworkConfig
from model.networks.network import initialise
from model.version import torchscript
from model.version.torchscript import Program

SEGMENT_LENGTH = 200
WORKING = 100
HISTORY = 1_003
CATALOGUE = 3_706
K = 10
TOGETHER = 8
ROUNDS = 8

SHAPES = {"sasrec": {"layers": 4, "heads": 4}, "hstu": {"layers": 16, "heads": 8}}
"""The paper's, with d=64 and C=4."""
PER_ROW = {"sasrec": 12, "hstu": 10}
"""FLOPs of a row in a layer, in units of d²; each key it sees is 4·d more (docs/model-spec.md, "Cost")."""

Arguments = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class Cost:
    """Median ms per user, alone and in a batch of eight."""

    kind: str
    state_bytes: int
    fold: tuple[float, float] | None
    recommend: tuple[float, float]
    after_fold: float | None


def configs(backbone: str) -> list[NetworkConfig]:
    """The compared networks. The program of Rec2PM serves Tok-Serial; HoloMambaRec has no backbone."""
    shape = {"n_items": CATALOGUE, "segment_length": SEGMENT_LENGTH, "segments": 5}
    blocks = {**shape, "backbone": backbone, **SHAPES[backbone]}
    tables = [
        {**blocks, "kind": "full", "segment_length": 17, "segments": HISTORY // 17},
        {**blocks, "kind": "trunc"},
        {**blocks, "kind": "rec2pm-o"},
        {**blocks, "kind": "rec2pm-o", "overlap": 50},
        {**blocks, "kind": "rec2pm-a"},
        {**blocks, "kind": "kv-mask-o"},
        {**blocks, "kind": "kv-mask-a"},
    ]
    if backbone == "sasrec":
        tables.append({**shape, "kind": "holomambarec", "layers": 2})
    return [NetworkConfig.of_table(table) for table in tables]


def name(config: NetworkConfig) -> str:
    overlap = config.table().get("overlap", 0)
    return config.kind + (f", overlap {overlap}" if overlap else "")


def measure(backbone: str) -> tuple[list[Cost], float]:
    """Every kind's costs, and the GEMM peak of the same run in GFLOP/s."""
    _keep_freed_memory()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            return _measure(configs(backbone))
    finally:
        torch.set_num_threads(threads)


def _measure(compared: list[NetworkConfig]) -> tuple[list[Cost], float]:
    generator = torch.Generator().manual_seed(0)
    timed: dict[str, tuple[Callable[[], object], int]] = {}
    state_bytes = {}
    for config in compared:
        program, label = _program(config, generator), name(config)
        state_bytes[label] = 4 * program.spec()["state_floats"]
        for users in (1, TOGETHER):
            memory = _state(program, config, users, generator)
            whole = config.kind == "full"
            segment, working = (_rows(users, 0 if whole else n, generator) for n in (SEGMENT_LENGTH, WORKING))
            timed[f"{label}/recommend/{users}"] = (lambda p=program, m=memory, w=working: p.recommend(m, *w, K)), users
            if not whole:
                timed[f"{label}/fold/{users}"] = (lambda p=program, m=memory, s=segment: p.update(m, *s)), users
        if config.kind != "full":
            hidden = program.update(_state(program, config, 1, generator), *_rows(1, SEGMENT_LENGTH, generator))[1]
            timed[f"{label}/after/1"] = (lambda p=program, h=hidden: p.rank(h, K, None)), 1
    timed |= {f"gemm/{label}": (_gemm(*shape), 1) for label, shape in GEMMS.items()}
    # In rounds, so that other load of the machine affects all kinds alike.
    found = _medians(timed, ROUNDS)
    peak = max(2 * m * n * k / found[f"gemm/{label}"] / 1e6 for label, (m, k, n) in GEMMS.items())
    costs = []
    for config in compared:
        label = name(config)
        fold = None if config.kind == "full" else (found[f"{label}/fold/1"], found[f"{label}/fold/{TOGETHER}"])
        recommend = (found[f"{label}/recommend/1"], found[f"{label}/recommend/{TOGETHER}"])
        costs.append(Cost(label, state_bytes[label], fold, recommend, found.get(f"{label}/after/1")))
    return costs, peak


def _program(config: NetworkConfig, generator: torch.Generator) -> Program:
    """A network as the worker loads it: scripted."""
    network = kinds.build(config)
    initialise(network, generator)
    return torchscript.script(kinds.serving(network, torch.rand(config.shape.n_items + 1, generator=generator)))


def _rows(users: int, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    return torch.randint(1, CATALOGUE + 1, (users, n), generator=generator), torch.full((users,), n)


def _state(program: Program, config: NetworkConfig, users: int, generator: torch.Generator) -> Tensor:
    """A state after enough folds that it is full."""
    memory: Tensor = program.initial_memory(users)
    if config.kind == "full":
        return _rows(users, HISTORY, generator)[0].to(torch.float32)
    for _ in range(max(1, config.folds_kept)):
        memory = program.update(memory, *_rows(users, SEGMENT_LENGTH, generator))[0]
    return memory


GEMMS = {"512": (512, 512, 512), "1024": (1024, 1024, 1024), "2048": (2048, 2048, 2048), "qkv": (1024, 64, 192)}
"""(m, k, n) of the matrix products; the fastest is the peak."""


def _gemm(m: int, k: int, n: int) -> Callable[[], Tensor]:
    a, b = torch.ones(m, k), torch.ones(k, n)
    return lambda: a @ b


def _medians(timed: dict[str, tuple[Callable[[], object], int]], rounds: int) -> dict[str, float]:
    """Median ms per user over all rounds. A round has a few calls that do not count, then up to 30 that do."""
    taken: dict[str, list[float]] = {name: [] for name in timed}
    for _ in range(rounds):
        for name, (call, users) in timed.items():
            until = time.perf_counter() + 0.2
            for call_number in range(33):
                began = time.perf_counter()
                call()
                ended = time.perf_counter()
                if call_number >= 3:
                    taken[name].append((ended - began) * 1_000 / users)
                    if ended > until:
                        break
    return {name: statistics.median(times) for name, times in taken.items()}


def _keep_freed_memory() -> None:
    """Tell glibc to keep freed memory: page faults double the time of kinds that allocate much, above all Full."""
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        for option, value in (
            (-3, 1 << 30),
            (-1, 1 << 30),
            (-2, 64 << 20),
        ):  # M_MMAP_THRESHOLD, M_TRIM_THRESHOLD, M_TOP_PAD
            libc.mallopt(option, value)


def fold_mflop(backbone: str, rows: int, d: int = 64) -> float:
    """MFLOP of a pass with this number of rows, dense attention, every row through every layer."""
    return SHAPES[backbone]["layers"] * rows * (PER_ROW[backbone] * d * d + 4 * d * rows) / 1e6


def table(costs: list[Cost], peak: float, backbone: str) -> list[str]:
    """The table as Markdown."""
    shape = SHAPES[backbone]
    lines = [
        f"{backbone}, {shape['layers']} layers, {shape['heads']} heads, d=64, C=4, L_seg={SEGMENT_LENGTH}. Milliseconds a user on one thread,",
        f"alone / as one of {TOGETHER}. GEMM peak of this run: {peak:.1f} GFLOP/s.",
        "",
        f"| kind | state bytes | fold, {SEGMENT_LENGTH} items | list from {WORKING} items | Full ÷ fold | Full ÷ list | list after a fold |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    full = next(cost for cost in costs if cost.kind == "full").recommend
    for cost in costs:
        fold, over = "–", "–"
        if cost.fold is not None:
            fold = f"{cost.fold[0]:.2f} / {cost.fold[1]:.2f}"
            over = f"{full[0] / cost.fold[0]:.1f} / {full[1] / cost.fold[1]:.1f}"
        after = "–" if cost.after_fold is None else f"{cost.after_fold:.3f}"
        listed = f"{cost.recommend[0]:.2f} / {cost.recommend[1]:.2f}"
        if cost.kind == "full":
            lines.append(f"| full, {HISTORY:,} items | {cost.state_bytes:,} | – | {listed} | 1 | 1 | – |")
        else:
            ratios = f"{full[0] / cost.recommend[0]:.1f} / {full[1] / cost.recommend[1]:.1f}"
            lines.append(f"| {cost.kind} | {cost.state_bytes:,} | {fold} | {listed} | {over} | {ratios} | {after} |")
    rec2pm = next(cost for cost in costs if cost.kind == "rec2pm-o").fold
    if rec2pm is not None:
        reached = [fold_mflop(backbone, SEGMENT_LENGTH + 8) / ms for ms in rec2pm]
        lines += [
            "",
            f"A fold of rec2pm-o reaches {reached[0]:.1f} GFLOP/s, {reached[0] / peak:.0%} of the peak ({reached[1] / peak:.0%} as one of {TOGETHER}),",
            f"and costs {rec2pm[0] * 1_000 / SEGMENT_LENGTH:.1f} µs an interaction.",
        ]
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", choices=sorted(SHAPES), default="sasrec")
    backbone = parser.parse_args().backbone
    print("\n".join(table(*measure(backbone), backbone)))


if __name__ == "__main__":
    warnings.filterwarnings("ignore", message="`torch.jit")
    main()
