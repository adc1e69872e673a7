"""What every network shares while it is trained: its shape, its item table, its input rows, and what its loss is made
of.

Item rows: 0 is padding, 1..V the catalogue, V+1 stands for any item outside it. Nothing here draws random numbers
except dropout.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.networks.backbone import BACKBONES, REL_BIASES, Block, blocks

KINDS: Final = (
    "full",
    "trunc",
    "rec2pm-o",
    "rec2pm-a",
    "tok-serial-o",
    "tok-serial-a",
    "kv-mask-o",
    "kv-mask-a",
    "holomambarec",
)
"""O keeps the memory of the last fold, A those of the last `segments` - 1 folds."""


@dataclass(frozen=True, slots=True)
class NetworkConfig:
    """A network's shape and what its loss depends on; stored in the manifest. Defaults: 4 layers, 4 heads, d=64
    (docs/model-spec.md, "Recipe flags").
    """

    n_items: int
    segment_length: int
    kind: str = "rec2pm-o"
    backbone: str = "sasrec"
    segments: int = 4
    """Segments of a training window; `segments` · `segment_length` is also what `full` sees of a history."""
    d: int = 64
    layers: int = 4
    heads: int = 4
    slots: int = 4
    dropout: float = 0.2
    temperature: float = 0.05
    overlap: int = 0
    """Of the `rec2pm` and `tok-serial` kinds: newest folded items that are read again beside the memory, so that a user
    who was just folded still has a recent past."""
    con_weight: float = 1.0
    """λ of the consistency loss, of the `rec2pm` kinds."""
    con_target_grad: bool = False
    """Let the consistency loss teach the reference memories too, instead of only being taught by them."""
    stage1_weight: float = 0.0
    """Of the `rec2pm` kinds: weight of predicting later segments from stage 1 too, which sees the whole window."""
    rollout: float = 0.0
    """Of the `rec2pm` kinds: share of the folds, from a window's third segment on, that read in training what the folds
    before them wrote, as in a stream, not the reference."""
    write_from_memory: bool = False
    """Of the `rec2pm` and `tok-serial` kinds: a fold's write rows start from the memory before it."""
    curriculum_epochs: int = 2
    """Of the `tok-serial` kinds: epochs before a training window is one segment longer."""
    state_size: int = 16
    """Of `holomambarec`: numbers kept per channel."""
    attributes: int = 0
    """Of `holomambarec`: distinct item attributes, 0 for none."""
    rel_bias: str = "none"
    """Of `full` and `trunc` on `hstu`: a relative attention bias by distance ("pos"), and by time as well
    ("pos_time").
    """

    def __post_init__(self) -> None:
        least = {
            "n_items": 1,
            "segment_length": 2,
            "segments": 1,
            "d": 1,
            "layers": 1,
            "heads": 1,
            "slots": 1,
            "curriculum_epochs": 1,
        }
        least |= {"state_size": 1, "attributes": 0, "overlap": 0}
        wrong = [
            f"{name} is {getattr(self, name)}, must be at least {low}"
            for name, low in least.items()
            if getattr(self, name) < low
        ]
        if self.kind not in KINDS:
            wrong.append(f"kind is {self.kind!r}, must be one of {', '.join(KINDS)}")
        if self.backbone not in BACKBONES:
            wrong.append(f"backbone is {self.backbone!r}, must be one of {', '.join(BACKBONES)}")
        if self.segments < 2 and self.folds_kept:
            wrong.append(
                f"segments is {self.segments}, must be at least 2: with one, nothing is ever folded in training"
            )
        memories: tuple[str, ...] = ("rec2pm", "tok-serial")
        two_stages: tuple[str, ...] = ("rec2pm",)
        of = {"overlap": memories, "write_from_memory": memories, "stage1_weight": two_stages, "rollout": two_stages}
        for name, those in of.items():
            if getattr(self, name) and not self.kind.startswith(those):
                wrong.append(f"{name} is {getattr(self, name)}, which {self.kind} does not have")
        if self.rel_bias not in REL_BIASES:
            wrong.append(f"rel_bias is {self.rel_bias!r}, must be one of {', '.join(REL_BIASES)}")
        elif self.rel_bias != "none" and (self.backbone != "hstu" or self.kind not in ("full", "trunc")):
            wrong.append(
                f"rel_bias is {self.rel_bias!r}, which only full and trunc on hstu have, not {self.kind} on {self.backbone}"
            )
        if self.overlap > self.segment_length:
            wrong.append(f"overlap is {self.overlap}, must be at most segment_length ({self.segment_length})")
        if self.heads >= 1 and self.d % self.heads:
            wrong.append(f"d ({self.d}) must be a multiple of heads ({self.heads})")
        if self.kind == "holomambarec" and self.d % 2:
            wrong.append(f"d ({self.d}) must be even for holomambarec")
        if not 0.0 <= self.dropout < 1.0:
            wrong.append(f"dropout is {self.dropout}, must be in [0, 1)")
        if self.temperature <= 0.0:
            wrong.append(f"temperature is {self.temperature}, must be positive")
        wrong += [
            f"{name} is {getattr(self, name)}, must not be negative"
            for name in ("con_weight", "stage1_weight")
            if getattr(self, name) < 0.0
        ]
        if not 0.0 <= self.rollout <= 1.0:
            wrong.append(f"rollout is {self.rollout}, must be in [0, 1]")
        if wrong:
            raise ValueError("; ".join(wrong))

    @property
    def oov_row(self) -> int:
        """The row of every item outside the catalogue: read as input, never recommended."""
        return self.n_items + 1

    @property
    def window(self) -> int:
        """Interactions of a training window."""
        return self.segments * self.segment_length

    @property
    def uses_time(self) -> bool:
        """Whether it reads when interactions happened."""
        return self.rel_bias == "pos_time"

    @property
    def folds_kept(self) -> int:
        """How many folds' memories a state holds: 0 where it holds none."""
        return {"-o": 1, "-a": self.segments - 1}.get(self.kind[-2:], 0)


@dataclass(frozen=True, slots=True)
class Losses:
    """Scalars. `total` is what is minimised; `consistency` is 0 where a kind has none."""

    total: Tensor
    next_item: Tensor
    consistency: Tensor


class Network(nn.Module, ABC):
    """A network in training. `positions` is how many places in a pass have a position of their own."""

    def __init__(self, config: NetworkConfig, positions: int) -> None:
        super().__init__()
        self.config = config
        self.d, self.segment_length = config.d, config.segment_length
        self.item = nn.Embedding(config.n_items + 2, config.d, padding_idx=0)
        if positions:
            self.position = nn.Parameter(torch.empty(positions, config.d))
        # post-LN SASRec norms its input; the others scale the item vectors instead.
        self.norm: nn.Module = nn.LayerNorm(config.d, eps=1e-12) if config.backbone == "sasrec" else nn.Identity()
        self.item_scale = 1.0 if config.backbone == "sasrec" else math.sqrt(config.d)
        self.drop = nn.Dropout(config.dropout)

    @abstractmethod
    def losses(self, items: Tensor, targets: Tensor, negatives: Tensor, times: Tensor | None = None) -> Losses:
        """The loss of a batch of windows.

        Args:
            items: (B, K·L) int64 item rows, oldest first, right-padded with 0.
            targets: (B, K·L) int64, the item after each; 0 where there is none to predict.
            negatives: int64 item rows, (N,) shared by all positions, or (B, K·L, N).
            times: (B, K·L + 1) int64 epoch ms, each item's and that of the last target; of networks whose
                `config.uses_time`.
        """

    def stage(self, epoch: int) -> None:
        """Called before each epoch, from 1 on, for kinds that are trained in stages."""

    def stack(self) -> list[Block]:
        """The blocks, first to last."""
        return []

    def embed(self, items: Tensor, first: int = 0) -> Tensor:
        """Item rows as input rows at positions `first` on, (B, n) int64 → (B, n, d)."""
        rows: Tensor = self.drop(
            self.norm(self.item(items) * self.item_scale + self.position[first : first + items.size(1)])
        )
        return rows

    def next_item_loss(self, rows: Tensor, targets: Tensor, negatives: Tensor) -> Tensor:
        """Mean cross entropy of cosine logits over temperature, with sampled negatives.

        Args:
            rows: (…, d) hidden states.
            targets: (…) int64, 0 where nothing is predicted.
            negatives: (N,) int64 shared by all, or (…, N). One that is the target itself is left out of that row.
        """
        predicts = targets != 0
        targets = targets[predicts]
        z = functional.normalize(rows[predicts], dim=1, eps=1e-6)
        wanted = (z * self.directions(targets)).sum(1, keepdim=True)  # (R, 1)
        if negatives.dim() == 1:
            others = z @ self.directions(negatives).t()  # (R, N)
        else:
            negatives = negatives[predicts]
            # Normed before it is looked up: there are many more negatives than items.
            table = functional.normalize(self.item.weight, dim=1, eps=1e-6)
            others = torch.einsum("rd,rnd->rn", z, functional.embedding(negatives, table))
        others = others.masked_fill(targets[:, None] == negatives, float("-inf"))
        logits = torch.cat([wanted, others], dim=1) / self.config.temperature
        return functional.cross_entropy(logits, torch.zeros_like(targets))

    def directions(self, items: Tensor) -> Tensor:
        """Unit item vectors, (…) int64 → (…, d)."""
        return functional.normalize(self.item(items), dim=-1, eps=1e-6)


def memory_rows(rows: Tensor) -> Tensor:
    """Output rows (…, d) as a memory: normed, so never all zeros, which is how an empty memory is told from a written
    one.
    """
    return functional.layer_norm(rows, [rows.size(-1)], eps=1e-6)


class SlotNetwork(Network):
    """A network of attention blocks whose folds are written by C learned vectors, the write rows.

    Positions start again at every segment, since a stream has no last one.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__(config, config.overlap + config.segment_length)
        self.slots = config.slots
        self.write = nn.Parameter(torch.empty(config.slots, config.d))
        self.blocks = blocks(config.backbone, config.layers, config.d, config.heads, config.dropout, config.window)

    def stack(self) -> list[Block]:
        return list(self.blocks)  # type: ignore[arg-type]

    def write_rows(self, batch: int) -> Tensor:
        """The write rows as input, (B, C, d)."""
        rows: Tensor = self.norm(self.write)
        return rows.expand(batch, -1, -1)


def initialise(network: nn.Module, generator: torch.Generator) -> None:
    """Tables, linear maps and learned vectors N(0, 0.02), convolutions U(±1/√width), biases 0, norms 1 and 0; padding
    is the zero vector.

    What a network sets itself in `preset` keeps its values; what it names in `factors`, because others are multiplied
    by it, is N(0, 1).
    """
    preset, factors = getattr(network, "preset", ()), getattr(network, "factors", ())
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.rpartition(".")[2] in preset:
                continue
            if name.endswith("bias"):
                parameter.zero_()
            elif "norm" in name:
                parameter.fill_(1.0)
            elif name.endswith("conv"):
                bound = parameter.size(-1) ** -0.5
                parameter.uniform_(-bound, bound, generator=generator)
            else:
                parameter.normal_(0.0, 1.0 if name in factors else 0.02, generator=generator)
        for module in network.modules():
            if isinstance(module, nn.Embedding) and module.padding_idx is not None:
                module.weight[module.padding_idx].zero_()


def full_segments(items: Tensor, L: int) -> Tensor:
    """(B, K·L) item rows, right-padded with 0 → (B, K): which segments have all their items."""
    last: Tensor = items.view(len(items), -1, L)[:, :, -1] != 0
    return last


def begun_segments(items: Tensor, L: int) -> Tensor:
    """As `full_segments`: which have at least one."""
    first: Tensor = items.view(len(items), -1, L)[:, :, 0] != 0
    return first
