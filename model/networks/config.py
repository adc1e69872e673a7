"""What a network is made of: its kind, the shape that all kinds have, and the options of its own kind.

A recipe's [network] and a manifest hold all of it in one flat table. `NetworkConfig.of_table` reads such a table, and
`NetworkConfig.table` writes one. docs/model-spec.md, "Recipe flags", says where each default comes from.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal, TypeVar

import msgspec

from model.networks.backbone import BACKBONES, REL_BIASES

DEFAULT_KIND: Final = "rec2pm-o"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What every kind has, and what its loss depends on."""

    n_items: int
    segment_length: int
    segments: int = 4
    """Segments of a training window. `segments` · `segment_length` is also what `full` sees of a history."""
    d: int = 64
    layers: int = 4
    dropout: float = 0.2
    temperature: float = 0.05

    @property
    def oov_row(self) -> int:
        """The row of every item outside the catalogue: read as input, never recommended."""
        return self.n_items + 1

    @property
    def window(self) -> int:
        """Interactions of a training window."""
        return self.segments * self.segment_length

    def problems(self) -> list[str]:
        least = {"n_items": 1, "segment_length": 2, "segments": 1, "d": 1, "layers": 1}
        found = _below(self, least)
        if not 0.0 <= self.dropout < 1.0:
            found.append(f"dropout is {self.dropout}, must be in [0, 1)")
        if self.temperature <= 0.0:
            found.append(f"temperature is {self.temperature}, must be positive")
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What only some kinds have: a class for each of them, below."""

    @property
    def uses_time(self) -> bool:
        """Whether the network reads when interactions happened."""
        return False

    def problems(self, shape: Shape) -> list[str]:  # noqa: ARG002
        """What cannot be, in words."""
        return []


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockOptions(Options):
    """Of the kinds that are made of attention blocks."""

    backbone: str = "sasrec"
    heads: int = 4

    def problems(self, shape: Shape) -> list[str]:
        found = _below(self, {"heads": 1})
        if self.backbone not in BACKBONES:
            found.append(f"backbone is {self.backbone!r}, must be one of {', '.join(BACKBONES)}")
        if self.heads >= 1 and shape.d % self.heads:
            found.append(f"d ({shape.d}) must be a multiple of heads ({self.heads})")
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryOptions(BlockOptions):
    """Of `full` and `trunc`."""

    rel_bias: str = "none"
    """On `hstu`: a relative attention bias by distance ("pos"), or by distance and time ("pos_time")."""

    @property
    def uses_time(self) -> bool:
        return self.rel_bias == "pos_time"

    def problems(self, shape: Shape) -> list[str]:
        found = BlockOptions.problems(self, shape)
        if self.rel_bias not in REL_BIASES:
            found.append(f"rel_bias is {self.rel_bias!r}, must be one of {', '.join(REL_BIASES)}")
        elif self.rel_bias != "none" and self.backbone != "hstu":
            found.append(f"rel_bias is {self.rel_bias!r}, which only hstu has, not {self.backbone}")
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotOptions(BlockOptions):
    """Of the kinds whose folds are written by learned vectors."""

    slots: int = 4

    def problems(self, shape: Shape) -> list[str]:
        found = [*BlockOptions.problems(self, shape), *_below(self, {"slots": 1})]
        if shape.segments < 2:
            found.append(
                f"segments is {shape.segments}, must be at least 2: with one, nothing is ever folded in training"
            )
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class KVMaskOptions(SlotOptions):
    """Of `kv-mask-o` and `kv-mask-a`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryOptions(SlotOptions):
    """Of the kinds that read a memory as rows of a pass: `rec2pm` and `tok-serial`."""

    overlap: int = 0
    """The newest folded items that are read again beside the memory, so that a user who was just folded still has a
    recent past."""
    write_from_memory: bool = False
    """A fold's write rows start from the memory before it."""

    def problems(self, shape: Shape) -> list[str]:
        found = [*SlotOptions.problems(self, shape), *_below(self, {"overlap": 0})]
        if self.overlap > shape.segment_length:
            found.append(f"overlap is {self.overlap}, must be at most segment_length ({shape.segment_length})")
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Rec2PMOptions(MemoryOptions):
    """Of `rec2pm-o` and `rec2pm-a`."""

    con_weight: float = 1.0
    """λ of the consistency loss."""
    con_target_grad: bool = False
    """The consistency loss also changes the reference memories; otherwise it only pulls written memories to them."""
    stage1_weight: float = 0.0
    """Weight of predicting later segments from stage 1 too, which sees the whole window."""
    rollout: float = 0.0
    """The share of the folds, from a window's third segment on, that read in training what the folds before them wrote,
    as in a stream, and not the reference."""

    def problems(self, shape: Shape) -> list[str]:
        found = [*MemoryOptions.problems(self, shape)]
        found += [
            f"{name} is {getattr(self, name)}, must not be negative"
            for name in ("con_weight", "stage1_weight")
            if getattr(self, name) < 0.0
        ]
        if not 0.0 <= self.rollout <= 1.0:
            found.append(f"rollout is {self.rollout}, must be in [0, 1]")
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class TokSerialOptions(MemoryOptions):
    """Of `tok-serial-o` and `tok-serial-a`."""

    curriculum_epochs: int = 2
    """Epochs before a training window is one segment longer."""

    def problems(self, shape: Shape) -> list[str]:
        return [*MemoryOptions.problems(self, shape), *_below(self, {"curriculum_epochs": 1})]


@dataclass(frozen=True, slots=True, kw_only=True)
class HoloMambaOptions(Options):
    """Of `holomambarec`."""

    state_size: int = 16
    """Numbers kept per channel."""
    attributes: int = 0
    """Distinct item attributes; 0 for none."""

    def problems(self, shape: Shape) -> list[str]:
        found = _below(self, {"state_size": 1, "attributes": 0})
        if shape.d % 2:
            found.append(f"d ({shape.d}) must be even for holomambarec")
        return found


@dataclass(frozen=True, slots=True)
class Kind:
    """What a kind's name stands for.

    `keeps`: the folds whose memories a state holds. "last" is the last one (the O kinds), "window" as many as a
    training window can have before a segment (the A kinds).
    """

    options: type[Options]
    keeps: Literal["none", "last", "window"] = "none"


KINDS: Final[Mapping[str, Kind]] = {
    "full": Kind(HistoryOptions),
    "trunc": Kind(HistoryOptions),
    "rec2pm-o": Kind(Rec2PMOptions, keeps="last"),
    "rec2pm-a": Kind(Rec2PMOptions, keeps="window"),
    "tok-serial-o": Kind(TokSerialOptions, keeps="last"),
    "tok-serial-a": Kind(TokSerialOptions, keeps="window"),
    "kv-mask-o": Kind(KVMaskOptions, keeps="last"),
    "kv-mask-a": Kind(KVMaskOptions, keeps="window"),
    "holomambarec": Kind(HoloMambaOptions),
}


@dataclass(frozen=True, slots=True)
class NetworkConfig:
    """A whole network. `options` are those of its kind.

    Raises:
        ValueError: something cannot be; the message has everything that is wrong.
    """

    kind: str
    shape: Shape
    options: Options

    def __post_init__(self) -> None:
        wrong = [*self.shape.problems(), *self.options.problems(self.shape)]
        if wrong:
            raise ValueError("; ".join(wrong))

    @property
    def folds_kept(self) -> int:
        """How many folds' memories a state holds; 0 for the kinds that do not fold into a memory."""
        return {"none": 0, "last": 1, "window": self.shape.segments - 1}[KINDS[self.kind].keeps]

    @staticmethod
    def of_table(table: Mapping[str, Any]) -> "NetworkConfig":
        """A network from one flat table. Fields that it leaves out have their defaults.

        Raises:
            ValueError: a field is unknown, of another kind, of the wrong type, or cannot be.
        """
        kind = table.get("kind", DEFAULT_KIND)
        if kind not in KINDS:
            raise ValueError(f"kind is {kind!r}, must be one of {', '.join(KINDS)}")
        foreign = [name for name in table if name not in fields_of(kind)]
        if foreign:
            raise ValueError("; ".join(_foreign(name, kind) for name in foreign))
        options = KINDS[kind].options
        return NetworkConfig(kind, _converted(table, Shape), _converted(table, options))

    def table(self) -> dict[str, Any]:
        """All fields of its kind as one flat table, defaults included."""
        return {"kind": self.kind, **asdict(self.shape), **asdict(self.options)}


def fields_of(kind: str) -> tuple[str, ...]:
    """The fields that a table of this kind can have."""
    return ("kind", *_names(Shape), *_names(KINDS[kind].options))


def without_foreign_fields(table: Mapping[str, Any]) -> dict[str, Any]:
    """The table without fields that only other kinds have.

    Earlier builds wrote the fields of all kinds into every manifest and checkpoint. Those of other kinds did nothing.
    """
    kind = table.get("kind", DEFAULT_KIND)
    if kind not in KINDS:
        return dict(table)
    own = fields_of(kind)
    return {name: value for name, value in table.items() if name in own or name not in ALL_FIELDS}


T = TypeVar("T")


def _converted(table: Mapping[str, Any], to: type[T]) -> T:
    names = _names(to)
    try:
        return msgspec.convert({name: value for name, value in table.items() if name in names}, to)
    except msgspec.ValidationError as error:
        raise ValueError(str(error)) from error


def _names(of: Any) -> tuple[str, ...]:
    return tuple(each.name for each in dataclasses.fields(of))


def _below(values: Any, least: Mapping[str, int]) -> list[str]:
    return [
        f"{name} is {getattr(values, name)}, must be at least {low}"
        for name, low in least.items()
        if getattr(values, name) < low
    ]


def _foreign(name: str, kind: str) -> str:
    having = [each for each in KINDS if name in fields_of(each)]
    if not having:
        return f"there is no field {name!r}"
    return f"{name} is a field of {', '.join(having)}, not of {kind}"


ALL_FIELDS: Final = tuple(dict.fromkeys(name for kind in KINDS for name in fields_of(kind)))
"""The fields of all kinds."""
