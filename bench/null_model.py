"""A model of the usual contract that costs almost nothing: the time of a worker with it is the stream's own.

`python -m bench.null_model --out REGISTRY --segment-length 50` writes null@1; an existing version stays as it is.
"""

import argparse
import sys
from pathlib import Path

import torch
from torch import Tensor, nn

from model.version import artifact
from model.version.manifest import Manifest
from model.version.registry import ModelVersion, Registry

NAME = "null"
ITEMS = 1_000


class Null(nn.Module):
    """Remembers nothing and recommends the items in the order of their rows."""

    popularity: Tensor

    def __init__(self, n_items: int, segment_length: int) -> None:
        super().__init__()
        self.n_items, self.segment_length = n_items, segment_length
        self.register_buffer("popularity", 1.0 / torch.arange(1, n_items + 1))

    def spec(self) -> dict[str, int]:
        return {
            "n_items": self.n_items,
            "d": 1,
            "segment_length": self.segment_length,
            "state_floats": 0,
            "uses_time": 0,
        }

    def initial_memory(self, batch: int) -> Tensor:
        return torch.zeros(batch, 0)

    def update(
        self, memory: Tensor, items: Tensor, lengths: Tensor, times: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        return memory, torch.zeros(items.size(0), 1)

    def recommend(
        self,
        memory: Tensor,
        items: Tensor,
        lengths: Tensor,
        k: int,
        times: Tensor | None = None,
        query_time: Tensor | None = None,
        exclude: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        return self.rank(torch.zeros(items.size(0), 1), k, exclude)

    def rank(self, hidden: Tensor, k: int, exclude: Tensor | None = None) -> tuple[Tensor, Tensor]:
        B, k = hidden.size(0), min(k, self.n_items)
        if exclude is None:
            return torch.arange(1, k + 1).expand(B, -1), self.popularity[:k].expand(B, -1)
        # No more than `e` items can be excluded, so the list lies within the first k + e.
        reach = min(k + exclude.size(1), self.n_items)
        scores = torch.zeros(B, reach + 1)
        scores[:, 1:] = self.popularity[:reach]
        scores = scores.scatter(1, exclude.masked_fill(exclude > reach, 0), float("-inf"))
        best, index = scores[:, 1:].topk(k, dim=1)
        return index + 1, best


def write(registry: Registry, segment_length: int) -> ModelVersion:
    network = Null(ITEMS, segment_length)
    sha256 = artifact.weights_sha256(network)
    manifest = Manifest(
        name=NAME,
        version="",
        kind="null",
        memory_format="null/0",
        segment_length=segment_length,
        state_floats=0,
        n_items=ITEMS,
        config={"n_items": ITEMS, "segment_length": segment_length},
        training=None,
        metrics=None,
        weights_sha256=sha256,
        program_version="bench",
    )
    return registry.add(network, manifest, list(range(ITEMS)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, metavar="REGISTRY")
    parser.add_argument("--segment-length", type=int, default=50)
    arguments = parser.parse_args()
    registry = Registry(arguments.out)
    there = registry.versions(NAME)
    if there:
        print(
            f"{there[0].reference} is there already, segment length {there[0].manifest().segment_length}",
            file=sys.stderr,
        )
        return
    print(write(registry, arguments.segment_length).uri)


if __name__ == "__main__":
    main()
