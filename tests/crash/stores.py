"""Check the stores after the workers have ended: one that claims to be complete equals the changelog, byte for byte."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from state.errors import StateCorrupted
from state.store import Store, StoreMemory
from tests.crash.taken import Taken

State = Mapping[bytes, bytes]
_MEMORY_BYTES = 32 << 20


def newest(records: Iterable[Taken], partitions: int) -> list[dict[bytes, bytes]]:
    """What a changelog's records amount to, partition by partition."""
    states: list[dict[bytes, bytes]] = [{} for _ in range(partitions)]
    for record in records:
        key = record.key or b""
        if record.value is None:
            states[record.partition].pop(key, None)
        else:
            states[record.partition][key] = record.value
    return states


def differing(folders: Iterable[Path], changelog: Mapping[int, State], ends: Mapping[int, int]) -> Iterator[str]:
    """What is wrong with the stores below some folders, a line each.

    Args:
        folders: one per worker name, with a store for each partition that this worker ever had.
        changelog: partition → what is committed in it.
        ends: partition → the end of the input, all of which is taken. A store that says it has taken as much must hold
            all of the changelog; one of a partition that went elsewhere is behind, and says so.
    """
    memory = StoreMemory(_MEMORY_BYTES)
    up_to_date: set[int] = set()
    for folder in sorted(folders):
        for path in sorted(folder.iterdir()):
            number = int(path.name)
            try:
                store = Store(path, memory)
            except StateCorrupted:
                continue  # damaged by a fault, and of a partition that never came back, or it would have been rebuilt
            try:
                if (store.position() or 0) < ends[number]:
                    continue
                found = dict(store.records())
            except StateCorrupted:
                continue  # the same, in a place that no step has read: a worker that reads it rebuilds the store
            else:
                up_to_date.add(number)
                yield from (f"{path}: {line}" for line in _unequal(found, changelog[number]))
            finally:
                store.close()
    yield from (
        f"partition {number}: no store has all of it"
        for number in sorted({n for n, end in ends.items() if end} - up_to_date)
    )


def _unequal(found: State, expected: State) -> Iterator[str]:
    lacking, more = expected.keys() - found.keys(), found.keys() - expected.keys()
    other = {key for key in expected.keys() & found.keys() if found[key] != expected[key]}
    if lacking or more or other:
        examples = [key.hex() for keys in (lacking, more, other) for key in sorted(keys)[:1]]
        yield f"{len(lacking)} records of the changelog lack, {len(more)} are in the store alone, {len(other)} differ: {', '.join(examples)}"
