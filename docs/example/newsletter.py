"""A program on both sides of the worker: it writes what happens in a shop, and reads lists for a newsletter."""

import json
from collections.abc import Mapping, Sequence

TITLES = {"tea": "Green tea", "mug": "A mug", "cake": "A cake", "jam": "Plum jam", "pot": "A tea pot"}


def event(customer: str, product: str, kind: str = "purchase") -> tuple[bytes, bytes]:
    """Key and value of a record for the worker. REC2PM_ITEM_FIELD, REC2PM_EVENT_FIELD and REC2PM_EVENTS read it."""
    return customer.encode(), json.dumps({"type": kind, "product": {"id": product}}).encode()


SETTINGS = {"item_field": "product.id", "event_field": "type", "events": "purchase", "recommend": "1", "top_k": "3"}


def newsletter(customer: str, items: Sequence[object], titles: Mapping[str, str] = TITLES) -> str:
    """The text for a customer."""
    known = [titles[str(item)] for item in items if str(item) in titles]
    return f"Dear {customer}, you may like: {', '.join(known)}." if known else f"Dear {customer}, come and see us!"
