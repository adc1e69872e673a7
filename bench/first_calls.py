"""What the first call of each shape costs after the warm-up of a version: `python -m bench.first_calls`.

TorchScript compiles what it has not seen. A worker must not meet that in a step, so the warm-up makes such calls before
it serves. CPU time of one thread, which other load of the machine does not change much. The *excess* is what the
slowest of the first calls takes beyond the median of the next ones of the same shape.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator

import numpy as np
import torch

from bench.fold import SHAPES
from model.networks import kinds
from model.networks.config import KINDS, NetworkConfig, fields_of
from model.networks.network import initialise
from model.version import torchscript
from model.version.artifact import Artifact
from model.version.manifest import Manifest
from model.version.runtime import CHUNK, Runtime

CATALOGUE, SEGMENT_LENGTH = 3416, 24
"""Short segments: what is compiled does not depend on their length, and calls are short beside it."""
FIRST, AGAIN = 3, 3
"""TorchScript looks at the first calls, and compiles in the next ones."""


def shapes(runtime: Runtime) -> Iterator[tuple[str, Callable[[], object]]]:
    """Calls of every kind that a worker makes, each of another shape, in a random order."""
    L, drawn = runtime.segment_length, np.random.default_rng(1)
    for _ in range(30):
        users = int(drawn.choice([1, 2, 3, int(drawn.integers(4, CHUNK)), CHUNK]))
        rows = drawn.integers(1, CATALOGUE + 2, (users, L))
        times = 1_700_000_000_000 + np.cumsum(drawn.integers(1, 10**8, (users, L)), axis=1)
        when, now = (times, times[:, -1]) if runtime.uses_time else (None, None)
        memory = runtime.fold(np.zeros((users, runtime.state_floats), np.float32), rows, when).memory
        known = str(drawn.choice(["all", "none", "some"]))
        memory[{"all": slice(0, 0), "none": slice(None), "some": slice(0, max(1, users // 2))}[known]] = 0
        exclude = rows[:, : int(drawn.choice([0, 1, L]))]
        lengths = drawn.integers(0, int(drawn.integers(1, L)) + 1, users)
        hidden = runtime.fold(memory, rows, when).hidden
        of = f"{users} users, memory of {known}, {exclude.shape[1]} left out"
        yield f"fold, {of}", lambda m=memory, r=rows, w=when: runtime.fold(m, r, w)
        yield f"rank, {of}", lambda h=hidden, e=exclude: runtime.rank(h, 10, e)
        yield (
            f"recommend, {of}, {lengths.max()} items",
            lambda m=memory, r=rows, n=lengths, e=exclude, w=when, q=now: runtime.recommend(m, r, n, 10, e, w, q),
        )


def measure(runtime: Runtime) -> list[tuple[float, float, str]]:
    """The excess of the slowest first call of each shape, the median of the next ones, ms, and the call; the largest
    excess first.
    """
    found = []
    for label, call in shapes(runtime):
        took = []
        for _ in range(FIRST + AGAIN):
            before = time.thread_time()
            call()
            took.append((time.thread_time() - before) * 1_000)
        usual = statistics.median(took[FIRST:])
        found.append((max(took[:FIRST]) - usual, usual, label))
    return sorted(found, reverse=True)


def loaded(config: NetworkConfig) -> Runtime:
    network = kinds.build(config)
    initialise(network, torch.Generator().manual_seed(0))
    program = torchscript.script(kinds.serving(network, torch.rand(config.shape.n_items + 1)))
    spec = program.spec()
    manifest = Manifest(
        name=config.kind,
        version="1",
        kind=config.kind,
        memory_format="",
        segment_length=spec["segment_length"],
        state_floats=spec["state_floats"],
        n_items=spec["n_items"],
        config={},
        training=None,
        metrics=None,
        weights_sha256="",
        program_version="",
    )
    return Runtime(Artifact(program, manifest, tuple(range(CATALOGUE))))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", choices=sorted(SHAPES), default="sasrec")
    parser.add_argument("--kind", choices=[kind for kind in KINDS if kind != "holomambarec"], action="append")
    parser.add_argument("--cold", action="store_true", help="without the warm-up, to see what it is for")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for kind in arguments.kind or ["rec2pm-o", "rec2pm-a", "kv-mask-o", "full"]:
        fields = {"backbone": arguments.backbone, **SHAPES[arguments.backbone]}
        own = {name: value for name, value in fields.items() if name in fields_of(kind)}
        runtime = loaded(
            NetworkConfig.of_table({"kind": kind, "n_items": CATALOGUE, "segment_length": SEGMENT_LENGTH, **own})
        )
        before = time.thread_time()
        if not arguments.cold:
            runtime.warm_up()
        warm_up_s = time.thread_time() - before
        found = measure(runtime)
        excess, usual, label = found[0]
        print(
            f"{kind} {arguments.backbone}: warm-up {warm_up_s:.2f} s of CPU; of {len(found)} calls the first took more"
        )
        print(f"  than the next ones by at most {excess:.1f} ms (usual {usual:.1f} ms: {label}),")
        print(f"  99 % of them by at most {found[len(found) // 100][0]:.1f} ms")


if __name__ == "__main__":
    main()
