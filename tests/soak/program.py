"""A trained version as the oracle knows it: the TorchScript of its folder, called one user at a time."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.crash.versions import Folded, Memory, Ranking

_BEYOND = 10
"""Of so many more items the scores are known: with another order of additions they might be in the list."""


@contextmanager
def _calling() -> Iterator[None]:
    # Every call has another shape, so compiling for one would take more time than it saves.
    with torch.inference_mode(), torch.jit.optimized_execution(False):
        yield


class ProgramVersion:
    """Under the contract of docs/model-spec.md. A memory is the bytes of its float32 numbers."""

    def __init__(self, folder: Path) -> None:
        manifest = json.loads((folder / "manifest.json").read_bytes())
        self.reference: str = f"{manifest['name']}@{manifest['version']}"
        self.memory_format: str = manifest["memory_format"]
        self.segment_length: int = manifest["segment_length"]
        self._items: list[int | str] = json.loads((folder / "catalogue.json").read_bytes())
        self._rows = {str(item): row for row, item in enumerate(self._items, start=1)}
        self._program: Any = torch.jit.load(str(folder / "model.pt"), map_location="cpu").eval()
        self._none: torch.Tensor = self._program.initial_memory(1)
        self._timed = bool(self._program.spec()["uses_time"])

    @property
    def unknown(self) -> int:
        return len(self._items) + 1

    def rows(self, items: Sequence[str]) -> list[int]:
        return [self._rows.get(item, self.unknown) for item in items]

    def may_fail(self, segment: Sequence[int]) -> bool:
        return False

    def fold(self, memory: Memory | None, segment: Sequence[int], times: Sequence[int]) -> Folded:
        rows, lengths = torch.tensor([segment]), torch.tensor([len(segment)])
        when = torch.tensor([times]) if self._timed else None
        with _calling():
            written, hidden = self._program.update(self._tensor(memory), rows, lengths, when)
        return Folded(written.reshape(-1).numpy().tobytes(), hidden)

    def ranked(
        self,
        memory: Memory | None,
        hidden: object,
        working: Sequence[int],
        times: Sequence[int],
        k: int,
        exclude: Sequence[int],
    ) -> Ranking:
        without = torch.tensor([exclude], dtype=torch.int64) if exclude else None
        if not working and hidden is not None:
            with _calling():
                return self._list(self._program.rank(hidden, k + _BEYOND, without), k)
        rows, lengths = torch.tensor([working], dtype=torch.int64), torch.tensor([len(working)])
        when = query = None
        if self._timed and times:
            when, query = torch.tensor([times], dtype=torch.int64), torch.tensor([times[-1]])
        with _calling():
            made = self._program.recommend(self._tensor(memory), rows, lengths, k + _BEYOND, when, query, without)
        return self._list(made, k)

    def popular(self, k: int, exclude: Sequence[int], time: int) -> Ranking:
        return self.ranked(None, None, (), (), k, exclude)

    def floats(self, memory: Memory | None) -> list[float]:
        numbers: list[float] = self._tensor(memory).reshape(-1).tolist()
        return numbers

    def _tensor(self, memory: Memory | None) -> torch.Tensor:
        if memory is None:
            return self._none
        assert isinstance(memory, bytes)
        return torch.from_numpy(np.frombuffer(bytearray(memory), np.float32)).view(self._none.shape)

    def _list(self, made: tuple[torch.Tensor, torch.Tensor], k: int) -> Ranking:
        rows, scores = (each[0].tolist() for each in made)
        found = [(self._items[row - 1], score) for row, score in zip(rows, scores, strict=True) if score > -np.inf]
        return Ranking([item for item, _ in found[:k]], [score for _, score in found[:k]], dict(found[k:]))
