"""A model by arithmetic on whole numbers: every memory and every list can be recomputed exactly, and tell whether an
item is missing, was taken twice, or stands in the wrong place.

Under the contract of `model.networks.serving`, as TorchScript, so that a worker runs it like any other; float32 counts
exactly as far as the numbers go (below 2**24), so neither the size of a batch nor the order of additions matters.
`tests.crash.arithmetic` says the same in plain Python.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from model.version import artifact
from model.version.manifest import Manifest
from model.version.registry import ModelVersion, Registry
from tests.crash.arithmetic import PLACES

NAME = "ledger"
STATE_FLOATS = 3
FAILURE = "the ledger cannot fold its last item"


class Ledger(nn.Module):
    """Memory is (sum that depends on the order, another one of the first's values, items folded); a list is a shuffled
    catalogue.

    Args:
        n_items: at most PLACES - 1, so that no two items have the same score.
        fails: whether folding the catalogue's last item raises, as a model with a mistake does.
        dialect: of its memories; each is a memory format.
        salt: which lists it makes of the same memory.
    """

    weight: Tensor

    def __init__(self, n_items: int, segment_length: int, *, fails: bool, dialect: int = 1, salt: int = 0) -> None:
        super().__init__()
        if not 2 <= n_items < PLACES:
            raise ValueError(f"a ledger has 2 to {PLACES - 1} items, not {n_items}")
        self.n_items, self.segment_length = n_items, segment_length
        self.poison = n_items if fails else -1
        self.shift, self.salt = 57 * (dialect - 1), salt
        self.register_buffer("weight", torch.tensor([float(dialect), float(salt)]))  # versions differ in their hashes

    def spec(self) -> dict[str, int]:
        return {
            "n_items": self.n_items,
            "d": 1,
            "segment_length": self.segment_length,
            "state_floats": 3,
            "uses_time": 0,
        }

    def initial_memory(self, batch: int) -> Tensor:
        return torch.zeros(batch, 3)

    def update(
        self, memory: Tensor, items: Tensor, lengths: Tensor, times: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        if bool((items == self.poison).any()):
            raise RuntimeError("the ledger cannot fold its last item")
        first, second, folded = memory.long().unbind(1)
        for place in range(items.size(1)):
            row, there = items[:, place], place < lengths
            new_first = 1 + (first * 31 + row + self.shift) % 8191
            second = torch.where(there, (second * 17 + new_first) % 8179, second)
            first = torch.where(there, new_first, first)
        memory = torch.stack([first, second, folded + lengths], 1).float()
        return memory, self.hidden(memory)

    def hidden(self, memory: Tensor) -> Tensor:
        """What a memory is ranked by before any working item: (B, 1)."""
        first, second, folded = memory.long().unbind(1)
        return ((first * 7 + second * 3 + folded + self.salt) % 99991).unsqueeze(1).float()

    def encode(self, memory: Tensor, items: Tensor, lengths: Tensor) -> Tensor:
        seed = self.hidden(memory).long().squeeze(1)
        for place in range(items.size(1)):
            seed = torch.where(place < lengths, (seed * 13 + items[:, place]) % 99991, seed)
        return seed.unsqueeze(1).float()

    def scores(self, hidden: Tensor) -> Tensor:
        """(B, V + 1), no two alike: a row's place in the shuffled catalogue, counted down."""
        rows = torch.arange(self.n_items + 1)
        return -((rows * 37 + hidden.long()) % 8191).float()

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
        return self.rank(self.encode(memory, items, lengths), k, exclude)

    def rank(self, hidden: Tensor, k: int, exclude: Tensor | None = None) -> tuple[Tensor, Tensor]:
        scores = self.scores(hidden)
        if exclude is not None:
            scores = scores.scatter(1, exclude.masked_fill(exclude > self.n_items, 0), float("-inf"))
        best, index = scores[:, 1:].topk(min(k, self.n_items), dim=1)
        return index + 1, best


def write(
    registry: Registry,
    item_ids: Sequence[int | str],
    segment_length: int,
    *,
    fails: bool = False,
    dialect: int = 1,
    salt: int = 0,
) -> ModelVersion:
    """A new version `ledger@N` of a registry."""
    network = Ledger(len(item_ids), segment_length, fails=fails, dialect=dialect, salt=salt)
    manifest = Manifest(
        name=NAME,
        version="",
        kind="ledger",
        memory_format=f"ledger/{dialect}",
        segment_length=segment_length,
        state_floats=STATE_FLOATS,
        n_items=len(item_ids),
        config={
            "n_items": len(item_ids),
            "segment_length": segment_length,
            "fails": fails,
            "dialect": dialect,
            "salt": salt,
        },
        training=None,
        metrics=None,
        weights_sha256=artifact.weights_sha256(network),
        program_version="crash",
    )
    return registry.add(network, manifest, list(item_ids))
