"""Titles of items, from a Parquet or CSV file with the columns `item_id` and `title`."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

import polars as pl

from stream.commands.output import printable
from stream.errors import SettingsInvalid

MAX_TITLE: Final = 200
"""Characters of a title; the rest is cut off."""
_COLUMNS: Final = ("item_id", "title")


class Titles:
    """The title of each item that has one. An integer and its decimal text are the same id."""

    def __init__(self, titles: Mapping[str, str]) -> None:
        self._titles: Final = titles

    def __len__(self) -> int:
        return len(self._titles)

    def of(self, items: Iterable[int | str]) -> dict[str, str]:
        """The titles of those items that have one, by the text of their ids."""
        texts = map(str, items)
        return {text: title for text in texts if (title := self._titles.get(text)) is not None}


def read_titles(path: Path) -> Titles:
    """Raises SettingsInvalid if the file cannot be read, or lacks a column."""
    try:
        frame = (
            pl.read_parquet(path)
            if path.suffix == ".parquet"
            else pl.read_csv(path, infer_schema=False, encoding="utf8")
        )
    except (OSError, pl.exceptions.PolarsError) as error:
        raise SettingsInvalid(
            f"--items={path} cannot be read as {'Parquet' if path.suffix == '.parquet' else 'CSV'}: {error}"
        ) from error
    if missing := [name for name in _COLUMNS if name not in frame.columns]:
        raise SettingsInvalid(
            f"--items={path}: no column {' and no column '.join(missing)}; its columns are {', '.join(frame.columns)}, "
            "expected item_id and title"
        )
    named = frame.select(pl.col(name).cast(pl.String) for name in _COLUMNS).drop_nulls()
    return Titles({item: printable(title[:MAX_TITLE]) for item, title in named.iter_rows()})
