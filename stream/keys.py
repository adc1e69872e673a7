"""What the key of a record is: a user id, in one of the forms in which programs write keys.

Inside the program a user id is text in UTF-8. `KeyFormat` turns a key into that text, and the text into the same key
again. The worker, `rec2pm produce`, `user forget` and the view all use it.
"""

import struct
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Final, Literal, TypeAlias
from uuid import UUID

import msgspec

from model.ids import CONTROL, MAX_ID_BYTES
from stream.errors import MalformedInteraction

Format: TypeAlias = Literal["utf8", "json", "long", "int", "uuid"]
"""The setting `REC2PM_KEY_FORMAT`."""

_NUMBERS: Final[dict[Format, struct.Struct]] = {"long": struct.Struct(">q"), "int": struct.Struct(">i")}
_WRITERS: Final = {
    8: ("long", "a number that Java's LongSerializer wrote"),
    4: ("int", "a number that Java's IntegerSerializer wrote"),
    16: ("uuid", "a UUID in binary"),
}
_LINE_ENDS: Final = (b"\r\n", b"\n", b"\r", b"\0")
_REMEMBERED: Final = 20_000
_CONFLUENT_PREFIX: Final = 5
"""One zero byte and four bytes of schema id."""


class KeyFormat:
    """One form of keys. A user and their key determine each other; only JSON has several spellings of one text."""

    def __init__(self, name: Format = "utf8") -> None:
        self.name: Final = name
        self._read: Final[Callable[[bytes], bytes]] = {
            "utf8": _text,
            "json": _json_text,
            "long": _number_reader("long"),
            "int": _number_reader("int"),
            "uuid": _uuid_text,
        }[name]
        # Users come again from poll to poll. To look one up takes a tenth of the time of reading the key.
        self._remembered: Final = lru_cache(_REMEMBERED)(self.user)

    def user(self, key: bytes | None) -> bytes:
        """The user id that a key is: 1 to 255 bytes of UTF-8.

        Raises:
            MalformedInteraction: it is not a key of this format. The message says what was found, what was expected,
                and which format fits, without repeating the key.
        """
        if not key:
            raise MalformedInteraction("key is null or empty, expected a user id")
        return self._read(key)

    def users(self, keys: Sequence[bytes | None]) -> Sequence[bytes | None]:
        """The user id of each of a poll's keys; None where `user` raises.

        Keys that are plain ASCII are looked at together: it costs some nanoseconds a key.
        """
        if self.name == "utf8" and _all_plain(keys):
            return keys
        try:
            return list(map(self._remembered, keys))
        except MalformedInteraction:
            return [self._user_or_none(key) for key in keys]

    def _user_or_none(self, key: bytes | None) -> bytes | None:
        try:
            return self._remembered(key)
        except MalformedInteraction:
            return None

    def key(self, user: str) -> bytes:
        """The key of a user id.

        Raises:
            ValueError: no key of this format is this user. The message says what was expected.
        """
        try:
            key = self._written(user)
            if self.user(key) == user.encode():
                return key
        except (MalformedInteraction, ValueError, struct.error):
            pass
        raise ValueError(f"is not a user id of REC2PM_KEY_FORMAT={self.name}, expected {_EXPECTED[self.name]}")

    def keys(self, users: Iterable[bytes]) -> list[bytes]:
        """The keys of user ids that `user` made."""
        if self.name == "utf8":
            return list(users)
        if (number := _NUMBERS.get(self.name)) is not None:
            return list(map(number.pack, map(int, users)))
        return [self._written(user.decode()) for user in users]

    def _written(self, user: str) -> bytes:
        match self.name:
            case "utf8":
                return user.encode()
            case "json":
                return msgspec.json.encode(user)
            case "uuid":
                return bytes.fromhex(user.replace("-", ""))
            case number:
                return _NUMBERS[number].pack(int(user))


_EXPECTED: Final[dict[Format, str]] = {
    "utf8": f"text of 1 to {MAX_ID_BYTES} bytes without control characters",
    "json": f"text of 1 to {MAX_ID_BYTES} bytes without control characters",
    "long": "an integer of 64 bits in decimal",
    "int": "an integer of 32 bits in decimal",
    "uuid": "a UUID as 123e4567-e89b-12d3-a456-426614174000",
}


def _all_plain(keys: Sequence[bytes | None]) -> bool:
    """Whether each key is a user id in printable ASCII. It joins the keys, and so looks at all of them at once."""
    if not all(keys):
        return False
    together = b"".join(keys)  # type: ignore[arg-type]  # none is null
    return (
        together.isascii()
        and len(together.translate(None, CONTROL)) == len(together)
        and max(map(len, keys), default=0) <= MAX_ID_BYTES  # type: ignore[arg-type]
    )


def _text(key: bytes, what: str = "key") -> bytes:
    if len(key.translate(None, CONTROL)) != len(key):
        raise MalformedInteraction(f"{what} is not text: it has control characters{guess(key)}")
    if not key.isascii():
        try:
            key.decode()
        except UnicodeDecodeError as error:
            raise MalformedInteraction(
                f"{what} is not UTF-8: {error.reason} at byte {error.start}{guess(key)}"
            ) from error
    if not 0 < len(key) <= MAX_ID_BYTES:
        raise MalformedInteraction(f"user id has {len(key)} bytes, expected 1 to {MAX_ID_BYTES}")
    return key


def _json_text(key: bytes) -> bytes:
    try:
        user = msgspec.json.decode(key, type=str)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise MalformedInteraction(
            f"key is not text in quotes, as REC2PM_KEY_FORMAT=json expects{_is_text(key) or guess(key)}"
        ) from error
    return _text(user.encode(), "key in quotes")


def _number_reader(name: Literal["long", "int"]) -> Callable[[bytes], bytes]:
    number = _NUMBERS[name]

    def read(key: bytes) -> bytes:
        if len(key) != number.size:
            raise MalformedInteraction(_wrong_length(key, name, number.size))
        return str(number.unpack(key)[0]).encode()

    return read


def _uuid_text(key: bytes) -> bytes:
    if len(key) != 16:
        raise MalformedInteraction(_wrong_length(key, "uuid", 16))
    return str(UUID(bytes=key)).encode()


def _wrong_length(key: bytes, name: Format, size: int) -> str:
    found = f"key has {len(key)} bytes, expected {size} (REC2PM_KEY_FORMAT={name})"
    return found + (_is_text(key) or guess(key))


def _is_text(key: bytes) -> str:
    """The end of a message about a key that is text."""
    try:
        _text(key)
    except MalformedInteraction:
        return ""
    return ": it is text, which REC2PM_KEY_FORMAT=utf8 reads"


def quoted(key: bytes) -> bool:
    """Whether a key is JSON text, with its quotes."""
    return len(key) > 2 and key[:1] == b'"' == key[-1:]  # two quotes are no id


def guess(key: bytes) -> str:
    """Who writes keys like this binary one, as the end of a message; empty if nobody known does."""
    if any(key.endswith(end) and _is_text(key.removesuffix(end)) for end in _LINE_ENDS):
        return ". It ends with a line break or a zero byte: send the user id without it"
    if _is_utf16(key):
        return ". It looks like UTF-16: not supported, send the user id as UTF-8"
    if (schema := _confluent(key)) is not None:
        return (
            f". It looks like Confluent's wire format, schema id {schema}: not supported, send the user id as text, "
            f"for example with StringSerializer{_or_a_number(key)}"
        )
    if key[:4] == b"\xac\xed\x00\x05":
        return ". It is Java's own serialization: not supported, send the user id as text"
    if (kind := _messagepack(key)) is not None:
        return f". It looks like MessagePack of {kind}: not supported, send the user id as text"
    return _or_a_number(key)


def _or_a_number(key: bytes) -> str:
    """Who writes keys of so many bytes, whatever they hold; empty if nobody known does."""
    if len(key) not in _WRITERS:
        return ""
    name, writer = _WRITERS[len(key)]
    return f". Its {len(key)} bytes may be {writer}: REC2PM_KEY_FORMAT={name} reads that"


def _is_utf16(key: bytes) -> bool:
    """Whether every other byte is zero and the rest are letters, of three characters or more."""
    halves = key[::2], key[1::2]
    return (
        len(key) >= 6
        and len(key) % 2 == 0
        and any(not any(one) and bool(_is_text(other)) for one, other in (halves, halves[::-1]))
    )


def _confluent(key: bytes) -> int | None:
    """The schema id, if a key has Confluent's wire format with Avro text or with JSON inside, or of a strange length.

    A number of 8 bytes may begin with zeros as well. What follows the schema id tells them apart.
    """
    payload = key[_CONFLUENT_PREFIX:]
    if not payload or key[0] != 0:
        return None
    schema = int.from_bytes(key[1:_CONFLUENT_PREFIX], "big")
    if schema == 0:  # ids of schemas begin with 1
        return None
    avro_text = payload[0] == 2 * (len(payload) - 1) and payload[0] < 0x80 and len(payload) > 1
    json_inside = payload[:1] in (b'"', b"{") and payload[-1:] in (b'"', b"}") and len(payload) > 1
    return schema if avro_text or json_inside or len(key) not in _WRITERS else None


def _messagepack(key: bytes) -> str | None:
    """What a key is in MessagePack, if it is one text or one large number."""
    if not (0xA1 <= key[0] <= 0xBF or 0xCC <= key[0] <= 0xD3 or 0xD9 <= key[0] <= 0xDB):
        return None
    try:
        found = msgspec.msgpack.decode(key)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return "text" if isinstance(found, str) else "an integer" if isinstance(found, int) else None
