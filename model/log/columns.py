"""Which columns of a log are read, and where a path leads."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

OPTIONS: Final = {
    "user_id": "--user-column",
    "item_id": "--item-column",
    "timestamp": "--timestamp-column",
    "attribute": "--attribute-column",
    "event": "--event-column",
}


@dataclass(frozen=True, slots=True)
class Columns:
    """The names of the columns of a log, or paths into nested ones: `product.id`. A column with the whole path as its
    name comes first. In a file without a header, a name may be the number of a column, from 1.
    """

    user: str = "user_id"
    item: str = "item_id"
    timestamp: str = "timestamp"
    attribute: str | None = None
    """What an item is: a genre or a brand."""
    event: str | None = None
    """What a user did: `view`, `purchase`."""

    def named(self) -> dict[str, str]:
        """By our name, the name in the log."""
        names = {"user_id": self.user, "item_id": self.item, "timestamp": self.timestamp}
        if self.attribute is not None:
            names["attribute"] = self.attribute
        if self.event is not None:
            names["event"] = self.event
        return names


def value_at(record: Mapping[str, Any], path: str) -> Any:
    """What a record has under a path; None if it has nothing there."""
    if path in record:
        return record[path]
    found: Any = record
    for name in path.split("."):
        if not isinstance(found, Mapping):
            return None
        found = found.get(name)
    return found
