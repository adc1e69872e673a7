"""Which of the lists that are asked for together can come from one pass of a model."""

from collections.abc import Sequence


def prefix_chains(memories: Sequence[bytes], items: Sequence[bytes]) -> list[list[int]]:
    """Find queries whose items are prefixes of each other, after the same memory.

    Args:
        memories: the preference memory of each query; empty for none.
        items: the item keys of each query, packed int64. Who has none shares nothing.

    Returns:
        Chains of at least two indices. The items of each are a prefix of those of the next one. No index is in two
        chains. The order depends on the arguments alone: it decides which users are in a batch, and with it the last
        digits of scores.
    """
    begins = [(memory, own[:8]) for memory, own in zip(memories, items, strict=True)]
    if len(set(begins)) == len(begins):
        return []  # as in most steps of a worker
    alike: dict[tuple[bytes, bytes], list[int]] = {}
    for at, begin in enumerate(begins):
        if begin[1]:
            alike.setdefault(begin, []).append(at)
    chains: list[list[int]] = []
    for together in alike.values():
        if len(together) == 1:
            continue
        # In the order of bytes, what begins with a prefix comes right behind it.
        together.sort(key=items.__getitem__)
        chain = together[:1]
        for at in together[1:]:
            if items[at].startswith(items[chain[-1]]):
                chain.append(at)
            else:
                chains.append(chain)
                chain = [at]
        chains.append(chain)
    return [chain for chain in chains if len(chain) > 1]
