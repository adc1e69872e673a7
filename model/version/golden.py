"""Golden lists: what a program answered for a few made users when its version was written, as `golden.json`.

Whoever loads the version asks the same again. Other answers mean that this program, with this torch on this machine,
does not compute what was trained. Equal scores may come in another order; numbers may differ by `TOLERANCE`.

Answers that cannot be right are refused too, when a version is made and when it is checked: numbers that are not
finite, memories that say "unknown user", rows outside the catalogue, scores that are all the same.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import pairwise
from typing import Final

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.errors import GoldenMismatch, ModelFailed
from model.version.manifest import GOLDEN
from model.version.torchscript import PROGRAM_FAILURES, Program, encodes_prefixes

TOLERANCE: Final = 1e-4
"""Of memories, hidden states and scores; of numbers larger than 1, this share of them. Batches of other sizes differ by
1e-6.
"""
SAME: Final = 1e-6
"""Scores that differ by less are the same: a list of such scores says nothing."""
K: Final = 10
USERS: Final = 3
_FIRST_MS: Final = 1_700_000_000_000
_MINUTE_MS: Final = 60_000

Rows = list[list[int]]


class Asked(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What U made users did, as item rows of the catalogue, oldest first. The catalogue's unknown row is among them.

    Times are epoch ms; None for a model that does not use time.
    """

    k: int
    first: Rows  # (U, L) the first segment
    second: Rows  # (U, L) the second
    working: Rows  # (U, n) what came after it, right-padded with 0
    lengths: list[int]  # (U,)
    exclude: Rows  # (U, e)
    first_ms: Rows | None  # (U, L)
    second_ms: Rows | None  # (U, L)
    working_ms: Rows | None  # (U, n)
    now_ms: list[int] | None  # (U,)


class Fold(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """float32 in the byte order of x86 and ARM: of all memories, (U, …), and of all hidden states, (U, d)."""

    memory: bytes
    hidden: bytes


class Lists(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Item rows (U, k) and their scores (U, k), best first. No score: everything else was excluded."""

    rows: Rows
    scores: list[list[float | None]]


class Golden(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """golden.json."""

    asked: Asked
    folds: dict[str, Fold]
    lists: dict[str, Lists]


def made(program: Program) -> bytes:
    """The golden.json of a program.

    Raises:
        GoldenMismatch: an answer cannot be right.
        ModelFailed: a call raises.
    """
    asked = _asked(program.spec())
    folds: dict[str, Fold] = {}
    lists: dict[str, Lists] = {}

    def keep_fold(name: str, memory: Tensor, hidden: Tensor) -> Tensor:
        folds[name] = Fold(_bytes(memory), _bytes(hidden))
        return memory

    def keep_lists(name: str, rows: Tensor, scores: Tensor) -> None:
        finite = [[score if np.isfinite(score) else None for score in line] for line in scores.tolist()]
        lists[name] = Lists(rows.tolist(), finite)

    _ask(program, asked, keep_fold, keep_lists)
    data = msgspec.json.encode(Golden(asked, folds, lists)) + b"\n"
    check(program, data)  # lists that are made in two ways are the same
    return data


def check(program: Program, data: bytes) -> float:
    """Ask a program what golden.json was made of, and compare. Returns the largest difference, counted as `TOLERANCE`.

    Raises:
        GoldenMismatch: an answer differs, or cannot be right; or `data` is not the golden.json of such a program.
        ModelFailed: a call raises.
    """
    try:
        golden = msgspec.json.decode(data, type=Golden)
    except msgspec.DecodeError as error:
        raise GoldenMismatch(f"{GOLDEN} is malformed: {error}") from error
    _check_asked(golden.asked, program.spec())
    apart = [0.0]

    def compare_fold(name: str, memory: Tensor, hidden: Tensor) -> Tensor:
        want = golden.folds.get(name)
        if want is None:
            raise GoldenMismatch(f"{GOLDEN} is malformed: it lacks {name!r}")
        stored = _tensor(want.memory, memory, name)
        apart.append(_compared(f"memories of {name!r}", memory, stored))
        apart.append(_compared(f"hidden states of {name!r}", hidden, _tensor(want.hidden, hidden, name)))
        return stored

    def compare_lists(name: str, rows: Tensor, scores: Tensor) -> None:
        want = golden.lists.get(name)
        if want is None:
            raise GoldenMismatch(f"{GOLDEN} is malformed: it lacks {name!r}")
        apart.extend(_compared_list(name, user, *each) for user, each in enumerate(_pairs(name, rows, scores, want)))

    _ask(program, golden.asked, compare_fold, compare_lists)
    return max(apart)


def _asked(spec: dict[str, int]) -> Asked:
    """The made users: any rows do, because what was asked is in the file. Popular items are asked more often."""
    V, L = spec["n_items"], spec["segment_length"]
    drawn = np.random.default_rng(0)
    n = max(1, L // 2)

    def rows(width: int) -> NDArray[np.int64]:
        return 1 + (drawn.random((USERS, width)) ** 2 * V).astype(np.int64)

    first, second, working = rows(L), rows(L), rows(n)
    first[:, 0] = V + 1
    lengths = np.array([n, 1, max(1, n // 2)])
    working[np.arange(n) >= lengths[:, None]] = 0
    # At most half of the catalogue, so that every list has scores.
    exclude = np.concatenate([working, np.full((USERS, 1), V + 1)], axis=1)
    exclude[exclude > max(1, V // 2)] = 0
    first_ms = second_ms = working_ms = now_ms = None
    if spec["uses_time"]:
        steps = (drawn.random((USERS, 2 * L + n + 1)) ** 4 * 10_000 * _MINUTE_MS).astype(np.int64) + 1
        times = _FIRST_MS + steps.cumsum(axis=1)
        first_ms, second_ms = times[:, :L].tolist(), times[:, L : 2 * L].tolist()
        working_ms, now_ms = times[:, 2 * L : 2 * L + n].tolist(), times[:, -1].tolist()
    return Asked(
        k=min(K, V),
        first=first.tolist(),
        second=second.tolist(),
        working=working.tolist(),
        lengths=lengths.tolist(),
        exclude=exclude.tolist(),
        first_ms=first_ms,
        second_ms=second_ms,
        working_ms=working_ms,
        now_ms=now_ms,
    )


def _ask(
    program: Program,
    asked: Asked,
    folded: Callable[[str, Tensor, Tensor], Tensor],
    listed: Callable[[str, Tensor, Tensor], None],
) -> None:
    """Make every call. `folded` and `listed` get the answers; `folded` returns the memory to go on with."""
    spec = program.spec()
    k, U = asked.k, len(asked.lengths)
    first, second, working = _int64(asked.first), _int64(asked.second), _int64(asked.working)
    lengths, exclude = _int64(asked.lengths), _int64(asked.exclude)
    first_ms, second_ms, working_ms, now_ms = (
        None if each is None else _int64(each)
        for each in (asked.first_ms, asked.second_ms, asked.working_ms, asked.now_ms)
    )
    full = torch.full((U,), first.size(1))

    def fold(name: str, memory: Tensor, items: Tensor, times: Tensor | None) -> tuple[Tensor, Tensor]:
        with _running(name):
            after, hidden = program.update(memory, items, full, times)
        _check_fold(name, after, hidden, memory, spec["d"])
        return folded(name, after, hidden), hidden

    def rank(name: str, hidden: Tensor, left_out: Tensor | None) -> None:
        with _running(name):
            rows, scores = program.rank(hidden, k, left_out)
        _check_lists(name, rows, scores, k, spec["n_items"], left_out)
        listed(name, rows, scores)

    def recommend(name: str, memory: Tensor, n: Tensor, left_out: Tensor | None, popular: bool = False) -> None:
        width = int(n.max())
        items = working[:, :width]
        when = None if working_ms is None else working_ms[:, :width]
        with _running(name):
            rows, scores = program.recommend(memory, items, n, k, when, now_ms, left_out)
        _check_lists(name, rows, scores, k, spec["n_items"], left_out, popular)
        listed(name, rows, scores)

    def prefixes(name: str, memory: Tensor, left_out: Tensor | None) -> None:
        """Make the lists of `recommend` from one pass over all prefixes, if the program can: they are the same."""
        if not encodes_prefixes(program):
            return
        with _running(name):
            if bool((program.longest_prefix(memory) < lengths).any()):
                return
            hidden = program.encode_prefixes(memory, working)[torch.arange(U), lengths - 1]
        try:
            rank(name, hidden, left_out)
        except GoldenMismatch as error:
            raise GoldenMismatch(f"by encode_prefixes, {error}") from error

    with torch.inference_mode():
        with _running("initial_memory"):
            nothing = program.initial_memory(U)
        once, hidden = fold("fold from no memory", nothing, first, first_ms)
        rank("rank after a fold from no memory", hidden, first)
        twice, hidden = fold("fold from a memory", once, second, second_ms)
        rank("rank after a fold from a memory", hidden, None)
        prefixes("memory and working memory", twice, None)
        recommend("memory and working memory", twice, lengths, None)
        recommend("memory and working memory, some left out", twice, lengths, exclude)
        prefixes("working memory alone", nothing, exclude)
        recommend("working memory alone", nothing, lengths, exclude)
        mixed = twice.clone()
        mixed[0] = 0
        recommend("one without a memory among others", mixed, lengths, exclude)
        # A model may have no row to rank by without an item: its list is the popular items.
        recommend("memory alone", twice, torch.zeros_like(lengths), None, popular=True)
        recommend("nothing", nothing, torch.zeros_like(lengths), None, popular=True)


@contextmanager
def _running(name: str) -> Iterator[None]:
    try:
        yield
    except (*PROGRAM_FAILURES, IndexError, ValueError) as error:
        last_line = (str(error).strip().splitlines() or [type(error).__name__])[-1]
        raise ModelFailed(f"the program failed in {name!r} of {GOLDEN}: {last_line[:300]}") from error


def _check_fold(name: str, memory: Tensor, hidden: Tensor, before: Tensor, d: int) -> None:
    if memory.shape != before.shape or tuple(hidden.shape) != (before.size(0), d):
        raise GoldenMismatch(
            f"{name!r} gives memories {list(memory.shape)} and hidden states {list(hidden.shape)}, "
            f"expected {list(before.shape)} and {[before.size(0), d]}"
        )
    if not (bool(torch.isfinite(memory).all()) and bool(torch.isfinite(hidden).all())):
        raise GoldenMismatch(f"{name!r} gives numbers that are not finite")
    # A model that remembers nothing has no number in its memory that could be 0.
    if memory.numel() and not bool(memory.flatten(1).any(1).all()):
        raise GoldenMismatch(f"{name!r} gives a memory of zeros only, which means an unknown user")


def _check_lists(
    name: str, rows: Tensor, scores: Tensor, k: int, V: int, left_out: Tensor | None, popular: bool = False
) -> None:
    """Refuse lists that no model gives. The scores of popular items may be all the same."""
    U = rows.size(0)
    if tuple(rows.shape) != (U, k) or rows.shape != scores.shape:
        raise GoldenMismatch(
            f"{name!r} gives rows {list(rows.shape)} and scores {list(scores.shape)}, expected {[U, k]}"
        )
    for user in range(U):
        line, points = rows[user].tolist(), scores[user].tolist()
        if len(set(line)) < k or min(line) < 1 or max(line) > V:
            raise GoldenMismatch(f"{name!r} gives the rows {line}, expected {k} different ones of 1..{V}")
        if any(np.isnan(points)) or points[0] == np.inf:
            raise GoldenMismatch(f"{name!r} gives scores that are not finite numbers: {points}")
        if any(after > before for before, after in pairwise(points)):
            raise GoldenMismatch(f"{name!r} gives scores that do not descend: {points}")
        excluded = set() if left_out is None else set(left_out[user].tolist())
        real = [(row, score) for row, score in zip(line, points, strict=True) if score > -np.inf]
        if len(real) < min(k, V - len(excluded & set(range(1, V + 1)))):
            raise GoldenMismatch(f"{name!r} gives {len(real)} items, although more are left")
        if kept := [row for row, _ in real if row in excluded]:
            raise GoldenMismatch(f"{name!r} gives the rows {kept}, which were to be left out")
        if not popular and len(real) > 1 and real[0][1] - real[-1][1] <= SAME * max(1.0, abs(real[0][1])):
            raise GoldenMismatch(f"{name!r} gives the same score to all items, {real[0][1]:g}: it cannot rank")


def _compared(what: str, found: Tensor, want: Tensor) -> float:
    if not found.numel():
        return 0.0  # the memories of a model that remembers nothing
    apart = float(((found - want).abs() / want.abs().clamp(min=1.0)).max())
    if not apart <= TOLERANCE:  # or it is NaN
        raise GoldenMismatch(f"the {what} differ from {GOLDEN} by {apart:.2g}, at most {TOLERANCE} is allowed")
    return apart


Scored = Mapping[int, float]
"""A list: the scores of its rows, best first."""


def _pairs(name: str, rows: Tensor, scores: Tensor, want: Lists) -> Iterator[tuple[Scored, Scored]]:
    """Each user's list as it was found and as it is wanted."""
    U, k = rows.shape
    if [len(set(line)) for line in want.rows] != [k] * U or [len(line) for line in want.scores] != [k] * U:
        raise GoldenMismatch(f"{GOLDEN} is malformed: the lists of {name!r} have other sizes than were asked for")
    for found, points, wanted, stored in zip(rows.tolist(), scores.tolist(), want.rows, want.scores, strict=True):
        yield (
            dict(zip(found, points, strict=True)),
            dict(zip(wanted, (-np.inf if score is None else score for score in stored), strict=True)),
        )


def _compared_list(name: str, user: int, found: Scored, want: Scored) -> float:
    # An item that only one of the two lists has must be at its end, where equal scores compete for the last place.
    last = list(want.values())[-1]
    apart = max(
        *map(_apart, found.values(), want.values()),
        *(_apart(score, want.get(row, last)) for row, score in found.items()),
    )
    if not apart <= TOLERANCE:
        raise GoldenMismatch(
            f"the list of {name!r}, user {user}, differs from {GOLDEN} by {apart:.2g}, at most {TOLERANCE} is allowed: "
            f"it has the rows and scores {_short(found)}, expected {_short(want)}"
        )
    return apart


def _apart(found: float, want: float) -> float:
    return 0.0 if found == want else abs(found - want) / max(1.0, abs(want))


def _short(scored: Scored) -> dict[int, float]:
    return {row: round(score, 4) for row, score in scored.items()}


def _check_asked(asked: Asked, spec: dict[str, int]) -> None:
    """Refuse the golden.json of a program with another catalogue, segment length or use of time."""
    V, L, U = spec["n_items"], spec["segment_length"], len(asked.lengths)
    tables: list[tuple[Rows, int | None]] = [
        (asked.first, L),
        (asked.second, L),
        (asked.working, None),
        (asked.exclude, None),
    ]
    widths = [({len(line) for line in table}, width, len(table)) for table, width in tables]
    rows = [row for table, _ in tables for line in table for row in line]
    times = (asked.first_ms, asked.second_ms, asked.working_ms, asked.now_ms)
    fits = (
        U > 0
        and all(count == U and len(found) == 1 and width in (None, *found) for found, width, count in widths)
        and 0 <= min(rows) <= max(rows) <= V + 1
        and 1 <= asked.k <= V
        and all(1 <= n <= len(asked.working[0]) for n in asked.lengths)
        and all((each is not None) == bool(spec["uses_time"]) for each in times)
    )
    if not fits:
        raise GoldenMismatch(
            f"{GOLDEN} is not of this program: it asks for other rows, lengths or times than a program with "
            f"{V} items and segments of {L} takes"
        )


def _int64(values: Rows | list[int]) -> Tensor:
    return torch.tensor(values, dtype=torch.int64)


def _bytes(values: Tensor) -> bytes:
    return values.detach().cpu().contiguous().numpy().astype("<f4").tobytes()


def _tensor(data: bytes, like: Tensor, name: str) -> Tensor:
    if len(data) != 4 * like.numel():
        raise GoldenMismatch(
            f"{GOLDEN} is not of this program: {name!r} has {len(data)} bytes, expected {4 * like.numel()}"
        )
    return torch.from_numpy(np.frombuffer(bytearray(data), "<f4").astype(np.float32)).view(like.shape)
