"""An event as a shop sends it: a JSON or MessagePack map in which some field has the item and another the time.

Settings name the fields. Most values are read by a decoder that is compiled for them and skips everything else. What it
does not take is read field by field. That is slower, and it decides: a field that nobody named is never a reason to
refuse, and the reason of a refusal names the field.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Final, TypeAlias

import msgspec

from model.ids import Id, checked
from model.times import BELOW, TimeRule
from model.values import in_words
from state.interaction import NAMED
from stream.errors import MalformedInteraction

Path: TypeAlias = tuple[str, ...]
"""The names of nested fields, from the outermost: ("product", "id")."""

_MAPS: Final = frozenset({*range(0x80, 0x90), 0xDE, 0xDF})
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_JSON: Final = frozenset(b"{ \t\r\n")
_CONFLUENT: Final = 0x00
_UNREADABLE: Final = (msgspec.DecodeError, AttributeError, IndexError, UnicodeDecodeError, RecursionError)
"""What the compiled decoder raises. AttributeError: there is no inner map. IndexError: the value is empty."""
_MOST_DIGITS: Final = 400
"""No integer of an event needs more, and above 4,300 Python raises an error."""
_ABSENT: Final = object()


@dataclass(frozen=True, slots=True)
class Fields:
    """Where an event has what."""

    item: Path = ("item",)
    time: Path = ("ts",)
    user: Path | None = None
    """The user id again, checked against the record's key; None: only the key has it."""
    event: Path | None = None
    """What kind of event it is; None: every record is an interaction."""
    events: frozenset[str] = frozenset()
    """The kinds that are interactions. Others are passed over."""


@dataclass(frozen=True, slots=True)
class Implausible:
    """A time outside the plausible range, as it came."""

    value: object


Reading: TypeAlias = tuple[Id, int | Implausible | None]
"""An item id, and when: epoch ms, or None if the event does not say it."""


class EventReader:
    """Reads events by their fields."""

    def __init__(self, fields: Fields | None = None, times: TimeRule | None = None) -> None:
        fields, times = fields or Fields(), times or TimeRule()
        self.fields: Final = fields
        self.times: Final = times
        self.read: Final = self._compiled()
        """Read the value of a record of a user.

        Returns:
            None if it is an event of a kind that is passed over.

        Raises:
            MalformedInteraction: it is not an event, or has no usable item or time, or is of another user. The message
                says what was found and what was expected. It does not repeat the user's data.
        """

    def _compiled(self) -> Callable[[bytes, bytes], Reading | None]:
        """Make `read`. This is the hottest path there is, and names of a call are found faster than attributes."""
        fields, times, by_field, as_time = self.fields, self.times, self._by_field, self._time
        # A field that nobody named is read as the item once more, and not looked at.
        paths = [fields.item, fields.time, fields.user or fields.item, fields.event or fields.item]
        compiled, names = _type_of(paths)
        from_msgpack, from_json = msgspec.msgpack.Decoder(compiled).decode, msgspec.json.Decoder(compiled).decode
        found_in = attrgetter(*names)
        has_user, has_kind, kinds = bool(fields.user), bool(fields.event), fields.events
        # A whole number of milliseconds is the usual time. Nothing has to be computed for it.
        low, high = (BELOW[0][1], BELOW[1][1]) if times.unit is None else (0, times.latest_ms)
        usual = times.unit in (None, "ms")
        from_ms, until_ms = (max(low, times.earliest_ms), min(high, times.latest_ms)) if usual else (1, 0)

        def read(value: bytes, user: bytes) -> Reading | None:
            try:
                item, time, who, kind = found_in(from_msgpack(value) if value[0] > 0x7F else from_json(value))
            except _UNREADABLE:
                return by_field(value, user)
            if has_kind and kind not in kinds:
                return None if kind.__class__ is str else by_field(value, user)
            if has_user and (who is None or str(who).encode() != user):
                return by_field(value, user)
            if item.__class__ is not int or not 0 <= item < NAMED:
                if item is None:
                    return by_field(value, user)
                item = _item(item, fields.item)
            if time.__class__ is not int or not from_ms <= time < until_ms:
                return item, None if time is None else as_time(time)
            return item, time

        return read

    def raw_time(self, value: bytes) -> Any:
        """The time of an event as it came; None if it has none. Raises MalformedInteraction as `read`."""
        found = _field(_parsed(value, self.fields), self.fields.time, required=False)
        return None if found is _ABSENT else found

    def _by_field(self, value: bytes, user: bytes) -> Reading | None:
        """Read a value that the compiled decoder does not take. Raises as `read`."""
        fields, event = self.fields, _parsed(value, self.fields)
        if fields.event and not _is_one_of(_field(event, fields.event), fields.events, fields.event):
            return None
        if fields.user:
            _check_user(_field(event, fields.user), user, fields.user)
        item = _item(_field(event, fields.item), fields.item)
        time = _field(event, fields.time, required=False)
        return item, None if time is None or time is _ABSENT else self._time(time)

    def _time(self, value: object) -> int | Implausible:
        try:
            ms = self.times.milliseconds(value)
        except ValueError as error:
            raise MalformedInteraction(f"`{_named(self.fields.time)}` {error}") from error
        return Implausible(value) if ms is None else ms


def _type_of(paths: list[Path]) -> tuple[type[msgspec.Struct], list[str]]:
    """A type that has nothing but these fields, and the attribute of each path in it."""
    kinds: dict[Path, Any] = dict.fromkeys(paths, int | str | None)
    kinds[paths[1]] = int | float | str | None
    tree: dict[str, Any] = {}
    for path in paths:
        branch = tree
        for name in path[:-1]:
            branch = branch.setdefault(name, {})
        branch[path[-1]] = kinds[path]
    attributes: dict[Path, str] = {}

    def made(branch: dict[str, Any], above: Path, prefix: str) -> type[msgspec.Struct]:
        fields, rename = [], {}
        for at, (name, below) in enumerate(branch.items()):
            attribute, path = f"f{at}", (*above, name)
            attributes[path] = prefix + attribute
            kind = made(below, path, f"{prefix}{attribute}.") | None if isinstance(below, dict) else below
            fields.append((attribute, kind, None))
            rename[attribute] = name
        return msgspec.defstruct("Event", fields, rename=rename, frozen=True, gc=False)

    return made(tree, (), ""), [attributes[path] for path in paths]


def _parsed(value: bytes, fields: Fields) -> Mapping[Any, Any]:
    """The outermost map of a value. A MessagePack map has values that are not decoded yet."""
    first = value[0] if value else None
    try:
        if first in _MAPS:
            return _opened(value)
        if value.startswith(_BYTE_ORDER_MARK):
            value = value[len(_BYTE_ORDER_MARK) :]
        elif first not in _JSON:
            raise MalformedInteraction(_not_a_map(value, fields))
        # The standard library's parser also takes the NaN and Infinity that many programs write.
        found = json.loads(value, parse_int=_integer)
    except (ValueError, RecursionError, msgspec.DecodeError) as error:
        kind = "MessagePack" if first in _MAPS else "JSON"
        raise MalformedInteraction(f"value is not {kind}: {_where(error)}") from error
    if not isinstance(found, dict):
        raise MalformedInteraction(f"value is {in_words(found)}, expected a map with `{_named(fields.item)}`")
    return found


def _integer(digits: str) -> int | str:
    """Digits that Python refuses to read as a number stay text, as in a field that nobody named."""
    return int(digits) if len(digits) <= _MOST_DIGITS else digits


def _opened(value: bytes | msgspec.Raw) -> Mapping[Any, Any]:
    return msgspec.msgpack.decode(value, type=dict[Any, msgspec.Raw])


def _field(event: Mapping[Any, Any], path: Path, *, required: bool = True) -> Any:
    """What is at a path of an event; `_ABSENT` if it is not there and need not be."""
    if len(path) > 1 and path[0] not in event and (literal := _named(path)) in event:
        path = (literal,)  # the field has the dot in its name
    found: Any = event
    for at, name in enumerate(path):
        if not isinstance(found, Mapping):
            if found is None and not required:
                return _ABSENT
            raise MalformedInteraction(f"`{_named(path[:at])}` is {in_words(found)}, expected a map with `{name}`")
        if name not in found:
            if required:
                raise MalformedInteraction(f"there is no field `{_named(path[: at + 1])}`")
            return _ABSENT
        found = found[name]
        if isinstance(found, msgspec.Raw):
            found = _decoded(found, path[: at + 1], innermost=at == len(path) - 1)
    return found


def _decoded(raw: msgspec.Raw, path: Path, *, innermost: bool) -> Any:
    """The value of one MessagePack field. A map on the way to another field is opened, its values are left alone."""
    try:
        first = memoryview(raw)[0]
        return _opened(raw) if not innermost and first in _MAPS else msgspec.msgpack.decode(raw)
    except (ValueError, RecursionError, msgspec.DecodeError) as error:
        raise MalformedInteraction(f"`{_named(path)}` is not readable as MessagePack: {_where(error)}") from error


def _item(value: object, path: Path) -> Id:
    try:
        return checked(value)
    except ValueError as error:
        raise MalformedInteraction(f"`{_named(path)}` {error}") from error


def _is_one_of(value: object, events: frozenset[str], path: Path) -> bool:
    if isinstance(value, str | int) and not isinstance(value, bool):
        return str(value) in events
    raise MalformedInteraction(f"`{_named(path)}` is {in_words(value)}, expected the kind of the event as text")


def _check_user(value: object, user: bytes, path: Path) -> None:
    try:
        same = str(checked(value)).encode() == user
    except ValueError as error:
        raise MalformedInteraction(f"`{_named(path)}` {error}") from error
    if not same:
        raise MalformedInteraction(f"`{_named(path)}` is another user than the record's key")


def _not_a_map(value: bytes, fields: Fields) -> str:
    expected = f"expected a MessagePack or JSON map with `{_named(fields.item)}`"
    if not value:
        return f"value is empty, {expected}"
    if value[0] == _CONFLUENT and len(value) >= 5:
        schema = int.from_bytes(value[1:5], "big")
        return f"value has Confluent's wire format, schema id {schema}: not supported, send MessagePack or JSON"
    return f"value starts with byte 0x{value[0]:02x}, {expected}"


def _where(error: Exception) -> str:
    """What a parser says, without the text that it quotes."""
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at character {error.pos}"
    if isinstance(error, UnicodeDecodeError):
        return f"byte {error.start} is not UTF-8"
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    return str(error)[:200]


def _named(path: Path) -> str:
    return ".".join(path)
