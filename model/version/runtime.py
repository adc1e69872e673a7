"""A model version as a worker uses it: numpy in, numpy out, any number of users per call.

It knows nothing of Kafka and the state store. It sets no thread counts: the owner of the process does.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from model.errors import ModelFailed
from model.version import artifact
from model.version.artifact import Artifact, ItemId
from model.version.manifest import Manifest
from model.version.torchscript import PROGRAM_FAILURES, encodes_prefixes

CHUNK = 32
"""Users per call of the program. With more, a CPU thread gains nothing, and activations no longer fit in the cache."""

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Folded:
    """`memory` (B, S) after the segments, S = `state_floats`. `hidden` (B, d): what to rank by without a second
    pass.
    """

    memory: Floats
    hidden: Floats


@dataclass(frozen=True, slots=True)
class Ranked:
    """Item rows (B, k) in 1..V and their scores (B, k), best first. Score -inf: no other items were left."""

    rows: Rows
    scores: Floats


class Runtime:
    """A loaded model version. Every call is a pure function of its arguments."""

    def __init__(self, loaded: Artifact) -> None:
        self.artifact = loaded
        self._program = loaded.program
        self.manifest: Manifest = loaded.manifest
        self.reference: str = loaded.manifest.reference
        self.item_ids: list[ItemId] = list(loaded.item_ids)
        self.memory_format: str = loaded.manifest.memory_format
        self.segment_length: int = loaded.manifest.segment_length
        self.state_floats: int = loaded.manifest.state_floats
        self.oov_row: int = loaded.manifest.n_items + 1
        self._memory_shape: list[int] = list(self._program.initial_memory(1).shape[1:])
        spec = self._program.spec()
        self.uses_time: bool = bool(spec["uses_time"])
        self._encodes_prefixes = encodes_prefixes(self._program)
        self._d: int = spec["d"]

    @staticmethod
    def load(folder: str | Path, sha256: str | None = None, like: "Runtime | None" = None) -> "Runtime":
        """Load the version in a folder, or behind a URL, if its manifest.json has this SHA-256, and warm it up.

        Args:
            like: a version that is loaded. If both have the same code, what is compiled is shared: that is quick, and
                other threads run meanwhile.

        Raises:
            ModelFailed: a first call fails.
            ModelError: what `model.version.artifact.load` raises.
        """
        runtime = Runtime(artifact.load(folder, sha256, None if like is None else like.artifact))
        runtime.warm_up()
        return runtime

    def warm_up(self) -> None:
        """Make the first calls, with every kind of arguments that a worker gives: they compile the program, which takes
        about a hundred times as long as a call. One user and several are compiled apart; how many they are is not, nor
        how many items they have (`python -m bench.first_calls`).

        Raises:
            ModelFailed: a call raises, or its answer has numbers that are not finite.
        """
        L = self.segment_length
        for _ in range(2):
            for users in (1, 2):
                rows = np.ones((users, L), np.int64)
                times, now = (rows, rows[:, 0]) if self.uses_time else (None, None)
                none = np.zeros((users, self.state_floats), np.float32)
                folded = self.fold(none, rows, times)
                self.fold(folded.memory, rows, times)
                mixed = folded.memory.copy()
                mixed[0] = 0
                for exclude in (rows, rows[:, :0]):
                    self.rank(folded.hidden, 10, exclude)
                    for memory in (none, folded.memory, mixed):
                        for n in (0, 1, max(1, L // 2), L):
                            lengths = np.full(users, n)
                            self.recommend(memory, rows, lengths, 10, exclude, times, now)
                for memory in (none, folded.memory, mixed):
                    for n in (1, max(1, L // 2), L):
                        if (self.longest_prefix(memory) >= n).all():
                            self.encode_prefixes(memory, rows[:, :n], np.full(users, n))

    def fold(self, memory: Floats, rows: Rows, times: Rows | None = None) -> Folded:
        """Fold one full segment per user.

        Args:
            memory: (B, S) float32; all zeros for a user who has none yet.
            rows: (B, L) int64 item rows, oldest first, no padding.
            times: (B, L) int64 epoch ms, for a model that uses time. `model.networks.serving` says what it does without
                them.
        """
        B = len(rows)
        folded = Folded(np.empty((B, self.state_floats), np.float32), np.empty((B, self._d), np.float32))
        with self._running("update"):
            for at in _chunks(np.argsort(memory.any(axis=1), kind="stable")):
                lengths = torch.full((len(at),), rows.shape[1])
                when = None if times is None else torch.from_numpy(times[at])
                written, hidden = self._program.update(
                    self._memory(memory[at]), torch.from_numpy(rows[at]), lengths, when
                )
                folded.memory[at], folded.hidden[at] = written.reshape(len(at), -1).numpy(), hidden.numpy()
            if not (np.isfinite(folded.memory).all() and np.isfinite(folded.hidden).all()):
                raise RuntimeError("the answer has numbers that are not finite")
        return folded

    def recommend(
        self,
        memory: Floats,
        rows: Rows,
        lengths: Rows,
        k: int,
        exclude: Rows,
        times: Rows | None = None,
        query_time: Rows | None = None,
    ) -> Ranked:
        """The k best items after preference memory and working memory.

        Args:
            memory: (B, S) float32; all zeros for a user who has none yet.
            rows: (B, n) int64 item rows, oldest first, right-padded with 0.
            lengths: (B,) int64, 0 allowed.
            k: length of the lists, at most the size of the catalogue.
            exclude: (B, e) int64 item rows that must not be recommended, 0 = none.
            times: (B, n) int64 epoch ms, for a model that uses time.
            query_time: (B,) int64 epoch ms, when the recommended item happens. None: the time of the last item.
        """
        ranked = self._empty(len(rows), k)
        with self._running("recommend"):
            # A batch has users of about the same length, all with a memory or all without: little padding, and the
            # program need not split it.
            for at in _chunks(np.lexsort((lengths, memory.any(axis=1)))):
                width = int(lengths[at].max())
                items = torch.from_numpy(rows[at, :width])
                when = None if times is None else torch.from_numpy(times[at, :width])
                query = None if query_time is None else torch.from_numpy(query_time[at])
                best, scores = self._program.recommend(
                    self._memory(memory[at]),
                    items,
                    torch.from_numpy(lengths[at]),
                    k,
                    when,
                    query,
                    _exclusion(exclude[at]),
                )
                ranked.rows[at], ranked.scores[at] = best.numpy(), scores.numpy()
            _check_scores(ranked)
        return ranked

    def longest_prefix(self, memory: Floats) -> Rows:
        """How many items `encode_prefixes` takes after each preference memory (B, S): (B,) int64, 0 for none.

        A program of an earlier build has no such method: 0 for all.
        """
        if not self._encodes_prefixes or not len(memory):
            return np.zeros(len(memory), np.int64)
        with self._running("longest_prefix"):
            longest: Rows = self._program.longest_prefix(self._memory(memory)).numpy()
        return longest

    def encode_prefixes(self, memory: Floats, rows: Rows, lengths: Rows) -> Floats:
        """What to rank by after every prefix of the working memory, from one pass.

        Args:
            memory: (B, S) float32; all zeros for a user who has none yet.
            rows: (B, n) int64 item rows, oldest first, right-padded with 0.
            lengths: (B,) int64, each in 1..`longest_prefix`.

        Returns:
            Hidden states, (B, n, d); after the first i + 1 items of user b at [b, i]. Zeros behind the last item.
        """
        states = np.zeros((*rows.shape, self._d), np.float32)
        with self._running("encode_prefixes"):
            for at in _chunks(np.lexsort((lengths, memory.any(axis=1)))):
                width = int(lengths[at].max())
                hidden = self._program.encode_prefixes(self._memory(memory[at]), torch.from_numpy(rows[at, :width]))
                real = np.arange(width) < lengths[at, None]
                states[at, :width] = np.where(real[..., None], hidden.numpy(), 0)
            if not np.isfinite(states).all():
                raise RuntimeError("the answer has numbers that are not finite")
        return states

    def rank(self, hidden: Floats, k: int, exclude: Rows) -> Ranked:
        """The k best items after hidden states (B, d), of a fold or of prefixes; otherwise as `recommend`."""
        ranked = self._empty(len(hidden), k)
        with self._running("rank"):
            for at in _chunks(np.arange(len(hidden))):
                best, scores = self._program.rank(torch.from_numpy(hidden[at]), k, _exclusion(exclude[at]))
                ranked.rows[at], ranked.scores[at] = best.numpy(), scores.numpy()
            _check_scores(ranked)
        return ranked

    @contextmanager
    def _running(self, method: str) -> Iterator[None]:
        """Raise what the program raises as `ModelFailed`, with the last line of its message: the lines above repeat the
        code of the program.
        """
        try:
            with torch.inference_mode():
                yield
        except (*PROGRAM_FAILURES, IndexError, ValueError) as error:
            last_line = (str(error).strip().splitlines() or [type(error).__name__])[-1]
            raise ModelFailed(f"{self.reference} failed in {method}: {last_line[:300]}") from error

    def _memory(self, memory: Floats) -> torch.Tensor:
        return torch.from_numpy(memory).view([len(memory), *self._memory_shape])

    def _empty(self, users: int, k: int) -> Ranked:
        k = min(k, self.manifest.n_items)
        return Ranked(np.empty((users, k), np.int64), np.empty((users, k), np.float32))


def _check_scores(ranked: Ranked) -> None:
    if np.isnan(ranked.scores).any():
        raise RuntimeError("the answer has scores that are not numbers")


def _chunks(order: NDArray[np.intp]) -> Iterator[NDArray[np.intp]]:
    for start in range(0, len(order), CHUNK):
        yield order[start : start + CHUNK]


def _exclusion(exclude: Rows) -> torch.Tensor | None:
    return torch.from_numpy(exclude) if exclude.shape[1] else None
