"""Keys: which are users, what their text is, and what is said of the others."""

import struct
import uuid
from typing import Final, get_args

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from model.ids import CONTROL, MAX_ID_BYTES
from stream.errors import MalformedInteraction
from stream.keys import Format, KeyFormat, guess

FORMATS: Final[tuple[Format, ...]] = get_args(Format)
_PLAIN: Final = st.characters(codec="utf-8", exclude_categories=("Cs", "Cc"))
TEXTS: Final = st.text(_PLAIN, min_size=1, max_size=40).filter(lambda text: len(text.encode()) <= MAX_ID_BYTES)


def refusal(key: bytes | None, form: Format = "utf8") -> str:
    with pytest.raises(MalformedInteraction) as caught:
        KeyFormat(form).user(key)
    return str(caught.value)


@given(st.one_of(TEXTS, st.integers(-(2**63), 2**63 - 1).map(str), st.uuids().map(str)))
@example("42")
@example("-1")
@example('"42"')
@example("地図")
def test_a_user_who_has_a_key_is_the_user_of_that_key_in_every_format(user: str) -> None:
    for name in FORMATS:
        form = KeyFormat(name)
        try:
            key = form.key(user)
        except ValueError:
            continue
        assert form.user(key) == user.encode()
        assert form.keys([user.encode()]) == [key]


@pytest.mark.parametrize(
    ("form", "user", "key"),
    [
        ("utf8", "42", b"42"),
        ("utf8", "user-ü", "user-ü".encode()),
        ("json", "42", b'"42"'),
        ("json", "ü", '"ü"'.encode()),
        ("long", "42", bytes(7) + b"*"),
        ("long", "-1", b"\xff" * 8),
        ("long", str(2**63 - 1), b"\x7f" + b"\xff" * 7),
        ("int", "42", b"\0\0\0*"),
        ("int", "-2147483648", b"\x80\0\0\0"),
        ("uuid", "123e4567-e89b-12d3-a456-426614174000", bytes.fromhex("123e4567e89b12d3a456426614174000")),
    ],
)
def test_a_key_has_the_bytes_that_javas_serializers_write(form: Format, user: str, key: bytes) -> None:
    assert KeyFormat(form).key(user) == key
    assert KeyFormat(form).user(key) == user.encode()


@pytest.mark.parametrize("spelling", [b'"\\u00fc"', '"ü"'.encode(), b' "\\u00FC" '])
def test_json_text_is_the_same_user_however_it_is_spelled(spelling: bytes) -> None:
    assert KeyFormat("json").user(spelling).decode() == "ü"


@pytest.mark.parametrize(
    ("form", "user"),
    [
        ("utf8", ""),
        ("utf8", "a\tb"),
        ("utf8", "x" * 256),
        ("utf8", "\ud800"),
        ("json", "a\nb"),
        ("long", "007"),
        ("long", "+7"),
        ("long", " 7"),
        ("long", "1_000"),
        ("long", "７"),  # a full-width seven, which Python's int() reads
        ("long", str(2**63)),
        ("long", "anna"),
        ("long", "9" * 5000),
        ("int", str(2**31)),
        ("uuid", "123E4567-E89B-12D3-A456-426614174000"),
        ("uuid", "42"),
    ],
)
def test_a_text_that_no_key_can_be_is_refused(form: Format, user: str) -> None:
    with pytest.raises(ValueError, match=f"is not a user id of REC2PM_KEY_FORMAT={form}, expected"):
        KeyFormat(form).key(user)


@given(st.lists(st.one_of(st.none(), st.binary(max_size=20), TEXTS.map(str.encode), st.just(b"u" * 256)), max_size=20))
@example([b"a", b""])
@example([b"a\x7f"])
@example([b"\xff"])
def test_the_keys_of_a_poll_are_the_users_that_each_of_them_is(keys: list[bytes | None]) -> None:
    for name in FORMATS:
        form = KeyFormat(name)
        expected: list[bytes | None] = []
        for key in keys:
            try:
                expected.append(form.user(key))
            except MalformedInteraction:
                expected.append(None)
        assert list(form.users(keys)) == expected


@given(st.binary(min_size=1, max_size=300))
def test_a_key_is_a_user_of_utf8_by_the_rule_and_by_nothing_else(key: bytes) -> None:
    try:
        key.decode()
        text = not any(byte in CONTROL for byte in key) and len(key) <= MAX_ID_BYTES
    except UnicodeDecodeError:
        text = False
    if text:
        assert KeyFormat().user(key) == key
    else:
        assert refusal(key)


@given(st.integers(-(2**53), 2**53))
def test_a_long_is_never_a_user_of_utf8_by_the_accident_of_its_last_byte(number: int) -> None:
    """2**53: beyond that are hashes. One of them in thousands has eight bytes of text, and no rule can tell."""
    assert "REC2PM_KEY_FORMAT=long" in refusal(struct.pack(">q", number))


@given(st.integers(-(2**21), 2**21))
def test_an_int_is_never_a_user_of_utf8_by_the_accident_of_its_last_byte(number: int) -> None:
    assert "REC2PM_KEY_FORMAT=int" in refusal(struct.pack(">i", number))


@pytest.mark.parametrize(
    ("key", "said"),
    [
        (None, "key is null or empty"),
        (b"", "key is null or empty"),
        (b"x" * 256, "user id has 256 bytes"),
        (bytes(7) + b"*", "REC2PM_KEY_FORMAT=long reads that"),
        (b"\0\0\0*", "REC2PM_KEY_FORMAT=int reads that"),
        (uuid.UUID(int=7).bytes, "REC2PM_KEY_FORMAT=uuid reads that"),
        (b"\0\0\0\0\x07\x0aanna1", "Confluent's wire format, schema id 7"),
        (b"\0\0\0\0\x07\x0442", "Confluent's wire format, schema id 7"),
        (b'\0\0\0\0\x07"42"', "Confluent's wire format, schema id 7"),
        (b"\0\0\0\0\x07\x54", "Confluent's wire format, schema id 7"),
        (msgspec.msgpack.encode("anna-ü"), "MessagePack of text"),
        (msgspec.msgpack.encode(1 << 40), "MessagePack of an integer"),
        ("anna".encode("utf-16-le"), "looks like UTF-16"),
        ("anna".encode("utf-16-be"), "looks like UTF-16"),
        (b"\xac\xed\x00\x05t\x00\x0242", "Java's own serialization"),
        (b"42\n", "ends with a line break"),
        (b"42\0", "ends with a line break or a zero byte"),
        (b"\xff\xfe\xfd", "key is not UTF-8: invalid start byte at byte 0"),
    ],
)
def test_a_key_that_is_no_text_is_refused_by_the_name_of_what_it_is(key: bytes | None, said: str) -> None:
    assert said in refusal(key)


@pytest.mark.parametrize(
    ("form", "key", "said"),
    [
        (
            "long",
            b"42",
            "key has 2 bytes, expected 8 (REC2PM_KEY_FORMAT=long): it is text, which REC2PM_KEY_FORMAT=utf8",
        ),
        ("long", b"\0\0\0*", "REC2PM_KEY_FORMAT=int reads that"),
        ("int", bytes(7) + b"*", "REC2PM_KEY_FORMAT=long reads that"),
        ("uuid", b"123e4567-e89b-12d3-a456-426614174000", "it is text"),
        ("json", b"42", "key is not text in quotes, as REC2PM_KEY_FORMAT=json expects: it is text"),
        ("json", b'""', "expected 1 to 255"),
        ("json", b'"a\\u0000"', "key in quotes is not text"),
        ("json", b'"\xff"', "key is not text in quotes"),
        ("json", bytes(7) + b"*", "REC2PM_KEY_FORMAT=long reads that"),
    ],
)
def test_a_key_of_another_format_is_refused_with_the_format_that_it_has(form: Format, key: bytes, said: str) -> None:
    assert said in refusal(key, form)


@given(st.binary(min_size=1, max_size=40))
def test_a_guess_is_made_of_any_key_and_never_repeats_it(key: bytes) -> None:
    said = guess(key)
    assert said == "" or said.startswith(". It")
    assert said.isprintable()
