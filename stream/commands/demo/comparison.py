"""The lists that users got, compared with the popularity list of the same past."""

from bisect import bisect_left
from collections import Counter

from rich.console import Console
from rich.table import Table

from stream.commands.demo.log import Log
from stream.commands.demo.settings import KEPT_SEGMENTS, SEGMENT_LENGTH, TOP_K
from stream.commands.demo.traffic import Served


def compare(log: Log, served: Served, cut: int, console: Console) -> None:
    """For each interaction of the traffic: was its item in the last list that the user had before it, and was it in the
    popularity list?
    """
    history = log.interactions.head(cut)
    popular = history.group_by("item_id").len().sort("len", "item_id", descending=[True, False])["item_id"].to_list()
    past = dict(history.group_by("user_id").len().iter_rows())
    counts: Counter[tuple[str, str]] = Counter()
    for user, items in served.items.items():
        lists = sorted(served.lists.get(user, []), key=lambda made: made.offset)
        offsets = [made.offset for made in lists]
        for at in range(max(1, past.get(user, 0)), len(items)):
            # The lists from before this interaction; ours is the newest of them, however far behind the workers were.
            before = bisect_left(offsets, served.offsets[user][at])
            if not before:
                continue
            made = lists[before - 1]
            seen = set(items[max(0, made.folds - KEPT_SEGMENTS) * SEGMENT_LENGTH : made.taken])
            # As in a worker, a list is never empty: if everything would be left out, nothing is.
            fallback = [item for item in popular[: TOP_K + len(seen)] if item not in seen][:TOP_K] or popular[:TOP_K]
            group = "with a memory" if made.folds else "without one yet"
            for name in ("all users", f"users {group}"):
                counts[name, "n"] += 1
                counts[name, "ours"] += items[at] in made.items
                counts[name, "popular"] += items[at] in fallback
    table = Table(box=None, padding=(0, 2))
    for column in ("", "interactions", "in the list", "in the popular list", "ratio"):
        table.add_column(column, justify="left" if not column else "right")
    for name in ("all users", "users with a memory", "users without one yet"):
        n, ours, theirs = (counts[name, each] for each in ("n", "ours", "popular"))
        if n:
            ratio = f"{ours / theirs:.1f}x" if theirs else "-"
            table.add_row(name, f"{n:,}", f"{ours:,} ({ours / n:.1%})", f"{theirs:,} ({theirs / n:.1%})", ratio)
    console.print(
        "\n[bold]6. How good were the lists?[/]  For each new interaction: was its item in the list that the user had before it?"
    )
    console.print("   The popularity list comes from the same past, and leaves out the same items of the user.\n")
    console.print(table)
