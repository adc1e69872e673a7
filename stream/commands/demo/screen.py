"""What the demo shows while its workers run: progress, and a few users with their newest lists."""

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from stream.commands.demo.log import Log
from stream.commands.demo.settings import SEGMENT_LENGTH
from stream.commands.demo.traffic import Served
from stream.commands.output import printable
from stream.wire import Recommendation


class Screen:
    """Redrawn in place on a terminal; otherwise one line every few seconds, and the users at the end."""

    def __init__(self, log: Log, served: Served, users: Sequence[str], cut: int, total: int, console: Console) -> None:
        self._log, self._served, self._users, self._cut, self._total, self._console = (
            log,
            served,
            users,
            cut,
            total,
            console,
        )
        self._every_s = 0.5 if console.is_terminal else 5.0
        self._drawn = time.monotonic()
        self._at: list[tuple[float, int]] = [(self._drawn, 0)]
        self._live: Live | None = None

    @contextmanager
    def live(self) -> Iterator[None]:
        if not self._console.is_terminal:
            yield
            self._console.print(self._people())
            return
        with Live(console=self._console, auto_refresh=False) as self._live:
            yield

    def is_due(self) -> bool:
        return time.monotonic() - self._drawn >= self._every_s

    def draw(self, committed: int) -> None:
        """Show how many interactions the workers have committed, and what the users have by now."""
        self._drawn = now = time.monotonic()
        self._at = [*self._at, (now, committed)][-9:]
        (then, before) = self._at[0]
        rate = (committed - before) / (now - then) if now > then else 0.0
        phase = "the past" if committed < self._cut else "traffic"
        folds = sum(self._served.folds.values())
        line = (
            f"   {phase:>8}  {committed:>7,} of {self._total:,} interactions  {rate:>8,.0f}/s   {len(self._served.lists):,} users   "
            f"{folds:,} segments folded   {self._served.received:,} lists"
        )
        if self._live is not None:
            self._live.update(Group(Text(line, style="bold"), Text(), self._people()), refresh=True)
        else:
            self._console.print(line, soft_wrap=True)

    def _people(self) -> Table:
        table = Table(box=None, padding=(0, 2), show_header=True, title_justify="left")
        table.add_column("user", style="bold", no_wrap=True)
        table.add_column("did last")
        table.add_column("gets now")
        table.add_column("why that makes sense")
        for user in self._users:
            lists = self._served.lists.get(user)
            made = lists[-1] if lists else None
            items = self._served.items[user][: made.taken] if made else []
            table.add_row(
                _shown(user),
                "\n".join(self._title(item) for item in reversed(items[-5:])),
                "\n".join(self._title(item) for item in (made.items[:5] if made else ())),
                self._why(items, made),
            )
            table.add_row()
        return table

    def _title(self, item: Any) -> str:
        genre = self._log.genres.get(item)
        return _shown(f"{self._log.titles.get(item, item)}" + (f" ({genre})" if genre else ""))

    def _why(self, items: Sequence[Any], made: Recommendation | None) -> str:
        if made is None:
            return "no list yet"
        working = made.taken - made.folds * SEGMENT_LENGTH
        reasons = [
            f"{made.taken} interactions",
            f"{made.folds} segments folded into 1 KB",
            f"{working} items in the working memory",
        ]
        if not self._log.genres:
            return "\n".join(reasons)
        favourites = [genre for genre, _ in Counter(self._log.genres[item] for item in items).most_common(3)]
        recent = {self._log.genres[item] for item in items[-3:]} - set(favourites)
        listed = Counter(self._log.genres[item] for item in made.items)
        old = sum(listed[genre] for genre in favourites)
        now = sum(listed[genre] for genre in recent)
        reasons.append(f"often: {', '.join(favourites)} → {old} of {len(made.items)}")
        if recent:
            reasons.append(f"lately: {', '.join(sorted(recent))} → {now} of {len(made.items)}")
        return "\n".join(reasons)


def _shown(text: str) -> str:
    """An id or a title as it is: no terminal and no markup acts on it."""
    return escape(printable(text))
