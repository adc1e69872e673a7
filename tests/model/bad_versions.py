"""Versions that no worker may serve, one of each kind. Each has a manifest that agrees with its files, unless that is
what is wrong.
"""

import io
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import msgspec
import torch
from torch import Tensor, nn

from model.version import manifest as manifests
from model.version import torchscript
from model.version.manifest import GOLDEN, MANIFEST, PROGRAM, facts
from model.version.registry import ModelVersion, Registry
from tests.crash import ledger
from tests.crash.ledger import Ledger

ITEMS: Final = list(range(30))
SEGMENT_LENGTH: Final = 4
LARGE_BYTES: Final = 100 << 20
GROWS: Final = 64
"""How often the version that grows takes 64 MB: 4 GB, so that a test without a limit does not fill the machine."""


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
        print("a program may print")
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


class Crashes(Ledger):
    """It reads where it has no memory: SIGSEGV."""

    def scores(self, hidden: Tensor) -> Tensor:
        far = torch.full([1], 1 << 40, dtype=torch.int64)
        rows = torch.arange(self.n_items + 1)
        return rows + hidden + torch.segment_reduce(hidden.flatten(), "sum", lengths=far, unsafe=True)


class Grows(Ledger):
    """It takes 4 GB before it answers."""

    def __init__(self, n_items: int, segment_length: int, *, fails: bool) -> None:
        super().__init__(n_items, segment_length, fails=fails)
        self.pieces = GROWS

    def hidden(self, memory: Tensor) -> Tensor:
        taken = [memory.new_ones(1 << 24)]
        for _ in range(self.pieces):
            taken.append(memory.new_ones(1 << 24))  # noqa: PERF401  # TorchScript takes no such comprehension
        return memory[:, :1] + len(taken)


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


class NoMemory(Ledger):
    def update(
        self, memory: Tensor, items: Tensor, lengths: Tensor, times: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        return memory * float("inf"), self.hidden(memory)


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
        inside = torchscript.loaded((folder(version) / PROGRAM).read_bytes(), [MANIFEST]).inside
        program = torchscript.script(network(len(ITEMS), SEGMENT_LENGTH, fails=False), methods)
        text = inside[MANIFEST]
        files = {MANIFEST: text if isinstance(text, bytes) else text.encode()}
        return replace_file(version, PROGRAM, torchscript.saved(program, files))

    return make


def _cut_short_before_it_was_hashed(registry: Registry) -> ModelVersion:
    version = good(registry)
    return replace_file(version, PROGRAM, (folder(version) / PROGRAM).read_bytes()[:-200])


def _newer_torch(registry: Registry) -> ModelVersion:
    """In a format that does not exist yet, by a torch that does not exist yet."""
    version, written = good(registry), io.BytesIO()
    with zipfile.ZipFile(folder(version) / PROGRAM) as old, zipfile.ZipFile(written, "w") as new:
        for entry in old.infolist():
            new.writestr(entry.filename, b"999\n" if entry.filename.endswith("/version") else old.read(entry))
    manifest = replace(version.manifest(), program=manifests.Program(torch_version="99.1.0"))
    (folder(version) / MANIFEST).write_bytes(manifests.encode(manifest))
    return replace_file(version, PROGRAM, written.getvalue())


def _lies(registry: Registry) -> ModelVersion:
    """Its manifest, and the one inside, say another segment length than the program."""
    version = good(registry)
    manifest = replace(version.manifest(), segment_length=SEGMENT_LENGTH + 1)
    (folder(version) / MANIFEST).write_bytes(manifests.encode(manifest))
    program = torchscript.loaded((folder(version) / PROGRAM).read_bytes(), []).program
    inside = {MANIFEST: manifests.encode(replace(manifest, files={}))}
    return replace_file(version, PROGRAM, torchscript.saved(program, inside))


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
    "cut short before it was hashed": Bad(_cut_short_before_it_was_hashed, "is not a TorchScript artifact"),
    "a newer torch wrote it": Bad(_newer_torch, "torch 99.1.0 wrote model.pt, and torch "),
    "lies about segment_length": Bad(_lies, "the program has segment_length 4, manifest.json says 5"),
    "a method of the contract is missing": Bad(
        _with_program(WithoutLists, ("spec", "initial_memory", "update")), "no method recommend, rank"
    ),
    "raises in warm-up": Bad(_with_program(Raises), "it always raises"),
    "hangs in warm-up": Bad(_with_program(Hangs), "did not end within"),
    "crashes in warm-up": Bad(_with_program(Crashes), "ended with SIGSEGV while warming up"),
    "grows in warm-up": Bad(_with_program(Grows), "too large for the memory there is: while warming up it had taken"),
    "memories that are not finite": Bad(_with_program(NoMemory), "failed in update: the answer has numbers that are"),
    "NaN scores": Bad(_with_program(NotANumber), "scores that are not numbers"),
    "constant scores": Bad(_with_program(Constant), "gives the same score to all items"),
    "other golden lists": Bad(_other_golden, "differ from golden.json"),
    "too large": Bad(_large, "too large for the memory there is"),
}
