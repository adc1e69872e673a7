"""Versions that no worker may serve, one of each kind. Each has a manifest that agrees with its files, unless that is
what is wrong.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
import torch
from torch import Tensor, nn

from model.version import torchscript
from model.version.manifest import GOLDEN, MANIFEST, PROGRAM, facts
from model.version.registry import ModelVersion, Registry
from tests.crash import ledger
from tests.crash.ledger import Ledger

ITEMS: Final = list(range(30))
SEGMENT_LENGTH: Final = 4
LARGE_BYTES: Final = 100 << 20


@dataclass(frozen=True, slots=True)
class Bad:
    """How to make it, and what a worker's reason has in it. `waits`: a file may still come, so it is not refused."""

    make: Callable[[Registry], ModelVersion]
    why: str
    waits: bool = False


class Raises(Ledger):
    def update(
        self, memory: Tensor, items: Tensor, lengths: Tensor, times: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        if bool((lengths > 0).any()):
            raise RuntimeError("it always raises")
        return memory, self.hidden(memory)


class Hangs(Ledger):
    def update(
        self, memory: Tensor, items: Tensor, lengths: Tensor, times: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        while bool((lengths > 0).any()):
            memory = memory + 1.0
        return memory, self.hidden(memory)


class WithoutLists(nn.Module):
    """It folds, and cannot rank."""

    weight: Tensor

    def __init__(self, n_items: int, segment_length: int, *, fails: bool) -> None:
        super().__init__()
        self.n_items, self.segment_length = n_items, segment_length
        self.register_buffer("weight", Ledger(n_items, segment_length, fails=fails).weight)

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
        return memory + 1.0, memory[:, :1] + 1.0


class NotANumber(Ledger):
    def scores(self, hidden: Tensor) -> Tensor:
        rows = torch.arange(self.n_items + 1)
        return (rows + hidden) * float("nan")


class Constant(Ledger):
    def scores(self, hidden: Tensor) -> Tensor:
        rows = torch.arange(self.n_items + 1)
        return (rows + hidden) * 0.0


def good(registry: Registry, salt: int = 0) -> ModelVersion:
    return ledger.write(registry, ITEMS, SEGMENT_LENGTH, salt=salt)


def folder(version: ModelVersion) -> Path:
    return Path(version.uri)


def replace_file(version: ModelVersion, name: str, data: bytes) -> ModelVersion:
    """Put another file there, and make the manifest agree with it."""
    there = folder(version)
    (there / name).write_bytes(data)
    manifest = msgspec.json.decode((there / MANIFEST).read_bytes())
    manifest["files"][name] = msgspec.to_builtins(facts(data))
    (there / MANIFEST).write_bytes(msgspec.json.encode(manifest))
    return version


def _with_program(
    network: type[Ledger] | type[WithoutLists], methods: tuple[str, ...] = torchscript.CONTRACT
) -> Callable[[Registry], ModelVersion]:
    """A version whose weights and golden lists are right, and whose program is this one."""

    def make(registry: Registry) -> ModelVersion:
        version = good(registry)
        _, inside = torchscript.loaded((folder(version) / PROGRAM).read_bytes(), [MANIFEST])
        program = torchscript.script(network(len(ITEMS), SEGMENT_LENGTH, fails=False), methods)
        text = inside[MANIFEST]
        files = {MANIFEST: text if isinstance(text, bytes) else text.encode()}
        return replace_file(version, PROGRAM, torchscript.saved(program, files))

    return make


def _without(name: str) -> Callable[[Registry], ModelVersion]:
    def make(registry: Registry) -> ModelVersion:
        version = good(registry)
        (folder(version) / name).unlink()
        return version

    return make


def _truncated(registry: Registry) -> ModelVersion:
    version = good(registry)
    path = folder(version) / PROGRAM
    path.write_bytes(path.read_bytes()[:-200])
    return version


def _other_bytes(registry: Registry) -> ModelVersion:
    version = good(registry)
    path = folder(version) / PROGRAM
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    return version


def _other_golden(registry: Registry) -> ModelVersion:
    other = good(registry, salt=17)
    return replace_file(good(registry), GOLDEN, (folder(other) / GOLDEN).read_bytes())


def _large(registry: Registry) -> ModelVersion:
    """Where LARGE_BYTES times four do not fit beside a worker."""
    version = good(registry)
    data = (folder(version) / PROGRAM).read_bytes()
    return replace_file(version, PROGRAM, data + bytes(LARGE_BYTES))


KINDS: Final[Mapping[str, Bad]] = {
    "a file is missing": Bad(_without(PROGRAM), "no such file", waits=True),
    "truncated": Bad(_truncated, "it is another file"),
    "other bytes": Bad(_other_bytes, "it is another file"),
    "a method of the contract is missing": Bad(
        _with_program(WithoutLists, ("spec", "initial_memory", "update")), "no method recommend, rank"
    ),
    "raises in warm-up": Bad(_with_program(Raises), "it always raises"),
    "hangs in warm-up": Bad(_with_program(Hangs), "did not end within"),
    "NaN scores": Bad(_with_program(NotANumber), "scores that are not numbers"),
    "constant scores": Bad(_with_program(Constant), "gives the same score to all items"),
    "other golden lists": Bad(_other_golden, "differ from golden.json"),
    "too large": Bad(_large, "too large for the memory there is"),
}
