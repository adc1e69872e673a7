"""Queries of Prometheus, held against what a worker tells: each metric, label and value in them must exist."""

import re
from collections.abc import Iterator, Mapping
from typing import Final

from tests.docs.generate import collected

_METRIC: Final = re.compile(r"\b((?:rec2pm|process)_\w+|up)\b(?:\{([^}]*)\})?")
_MATCHER: Final = re.compile(r'(\w+)\s*(?:=~|!~|!=|=)\s*"([^"]*)"')
_GROUPED: Final = re.compile(r"\b(?:by|on|without|ignoring|group_left|group_right)\s*\(([^)]*)\)")
OF_THE_SCRAPE: Final = frozenset({"job", "instance"})
"""Labels that Prometheus gives to each sample."""
_FIXED: Final = ("phase", "reason", "result", "state")
"""Labels whose values are the same in every worker."""


def told() -> Mapping[str, Mapping[str, set[str]]]:
    """Sample name → label → its values, of a worker that has everything to tell."""
    found: dict[str, dict[str, set[str]]] = {"up": {}}
    for metric in collected():
        for sample in metric.samples:
            labels = found.setdefault(sample.name, {})
            for label, value in sample.labels.items():
                labels.setdefault(label, set()).add(value)
    return found


def problems(query: str, known: Mapping[str, Mapping[str, set[str]]]) -> Iterator[str]:
    """What in a query no worker tells."""
    used: set[str] = set()
    for name, matchers in _METRIC.findall(query):
        if name not in known:
            yield f"no metric {name}"
            continue
        used |= known[name].keys()
        for label, value in _MATCHER.findall(matchers):
            if label in OF_THE_SCRAPE or value.startswith("$"):
                continue
            if label not in known[name]:
                yield f"{name} has no label {label}"
            elif label in _FIXED and value not in known[name][label]:
                yield f"{name} has no {label}={value}"
    for labels in _GROUPED.findall(query):
        for label in map(str.strip, labels.split(",")):
            if label and label not in used | OF_THE_SCRAPE:
                yield f"no label {label} to group by"
