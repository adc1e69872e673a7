"""The records of the topic `<app>.models`: which version should serve, what was promoted when, what each worker serves.

Nothing here knows of Kafka or a clock. Keys and values:

    alias/<alias>     Promotion   what workers that follow the alias should serve; the newest record counts
    promotion/<ulid>  Promotion   the same value under a key of its own, so that compaction keeps the history
    worker/<name>     Report      what a worker serves, loads or refuses; a null value when it stopped cleanly

A value is JSON. Readers ignore fields that they do not know, and keep out records that they cannot read.
"""

import logging
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated, Final, Literal, TypeAlias, TypeVar

import msgspec

logger = logging.getLogger(__name__)

SCHEMA: Final = 1
CHAMPION: Final = "champion"
"""The alias of the version that serves."""
ALIAS: Final = r"^(?!none$)[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"
"""`REC2PM_FOLLOW=none` means no alias."""
_REFERENCE: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]*@[1-9][0-9]*$"
_ULID: Final = r"^[0-7][0-9A-HJKMNP-TV-Z]{25}$"
_CROCKFORD: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"

Alias: TypeAlias = Annotated[str, msgspec.Meta(pattern=ALIAS)]
Reference: TypeAlias = Annotated[str, msgspec.Meta(pattern=_REFERENCE)]
"""NAME@VERSION"""
PromotionId: TypeAlias = Annotated[str, msgspec.Meta(pattern=_ULID)]
Sha256: TypeAlias = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}$")]
"""Of the manifest of a version, which has the hashes of its other files."""
Ms: TypeAlias = Annotated[int, msgspec.Meta(ge=0)]
"""Epoch milliseconds."""
Text: TypeAlias = Annotated[str, msgspec.Meta(min_length=1)]
_R = TypeVar("_R")


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One check of the gate. `figure` says in words what was measured, or why the check was left out."""

    name: Text
    result: Literal["passed", "failed", "left out"]
    figure: str


class Promotion(msgspec.Struct, frozen=True, kw_only=True):
    """A version that should serve from now on.

    `bytes` is the size of all its files. `previous` is the version that the alias named before, and `expected` the id
    of the promotion that the promoter saw there; None if the alias named nothing. `forced` names the failed checks that
    the promoter passed over, and `why` says why.
    """

    schema: int = SCHEMA
    id: PromotionId
    alias: Alias
    version: Reference
    uri: Text
    sha256: Sha256
    memory_format: Text
    segment_length: Annotated[int, msgspec.Meta(ge=1)]
    bytes: Annotated[int, msgspec.Meta(ge=0)]
    previous: Reference | None
    expected: PromotionId | None
    who: Text
    when_ms: Ms
    why: str | None = None
    kind: Literal["promote", "rollback"] = "promote"
    forced: tuple[str, ...] = ()
    gate: tuple[Check, ...] = ()


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker does with models.

    `serves` and `sha256` are the version that makes its lists; None if it has none yet. `promotion` is the id of the
    promotion that named that version, or empty if a setting did. `source` says where the choice came from: `promoted`,
    `configured` (REC2PM_MODEL), or `local` (the promoted version is out of reach, so it serves the newest one it has).
    `of` is the version that it loads, refuses or waits for, `of_promotion` the promotion that named it, and `why` says
    why in words.
    """

    schema: int = SCHEMA
    worker: Text
    state: Literal["serving", "loading", "refused", "waiting"]
    serves: Reference | None
    sha256: Sha256 | None
    promotion: str
    source: Literal["promoted", "configured", "local"]
    of: Reference | None = None
    of_promotion: str = ""
    why: str | None = None
    since_ms: Ms


@dataclass(slots=True)
class Models:
    """What the topic says: its records applied in their order. Equal topics give equal models."""

    aliases: dict[str, Promotion] = field(default_factory=dict)
    """Alias → what it names now."""
    history: dict[str, Promotion] = field(default_factory=dict)
    """Id → promotion, in the order of the topic: oldest first."""
    workers: dict[str, Report] = field(default_factory=dict)
    """Name → its newest report; workers that stopped cleanly have none."""
    kept_out: set[bytes] = field(default_factory=set, compare=False)
    """Keys of the records that cannot be read."""

    def apply(self, key: bytes, value: bytes | None) -> None:
        """Take in one record; a null value deletes what its key names.

        A record that cannot be read is kept out: what its key named before stays. The log says so once per key.
        """
        try:
            kind, name = _parts(key)
            if kind == "worker":
                _put(self.workers, name, None if value is None else _report(name, value))
            elif kind == "alias":
                _put(self.aliases, name, None if value is None else _promotion(value, alias=name))
            else:
                _put(self.history, name, None if value is None else _promotion(value, id=name))
        except _Unreadable as why:
            if key not in self.kept_out:
                self.kept_out.add(key)
                logger.warning("record of a model passed over key=%s: %s", key.decode(errors="backslashreplace"), why)

    def newest_first(self) -> list[Promotion]:
        """All promotions, of every alias."""
        return list(reversed(self.history.values()))

    def before(self, alias: str = CHAMPION) -> Promotion | None:
        """The promotion that a rollback returns to; None if there is none before the current one.

        A rollback undoes one promotion. So a second one in a row goes one further back, and not forward to the version
        that the first one left.
        """
        standing = _standing(each for each in self.history.values() if each.alias == alias)
        current = self.aliases.get(alias)
        if standing and current is not None and standing[-1].version == current.version:
            standing.pop()
        return standing[-1] if standing else None


def alias_key(alias: str) -> bytes:
    return f"alias/{alias}".encode()


def promotion_key(promotion_id: str) -> bytes:
    return f"promotion/{promotion_id}".encode()


def worker_key(worker: str) -> bytes:
    return f"worker/{worker}".encode()


def encode(record: Promotion | Report) -> bytes:
    return msgspec.json.encode(record)


def iso(epoch_ms: int) -> str:
    """A time in UTC, to the second: 2026-11-28T22:40:00Z."""
    try:
        return f"{datetime.fromtimestamp(epoch_ms // 1000, UTC):%Y-%m-%dT%H:%M:%SZ}"
    except (OverflowError, ValueError, OSError):  # a clock may say anything
        return f"{epoch_ms} ms"


def in_words(promotion: Promotion) -> str:
    """Who promoted what, and when."""
    did = "rolled back to" if promotion.kind == "rollback" else "promoted"
    return f"{promotion.who} {did} {promotion.version} at {iso(promotion.when_ms)}"


def new_id(now_ms: int) -> str:
    """A ULID: 26 characters that sort by time, of 48 bits of epoch ms and 80 random ones."""
    number = (now_ms << 80) | secrets.randbits(80)
    return "".join(_CROCKFORD[(number >> shift) & 31] for shift in range(125, -1, -5))


class _Unreadable(Exception):
    """Why a record cannot be read, in words."""


class _Schema(msgspec.Struct):
    schema: int


def _parts(key: bytes) -> tuple[str, str]:
    try:
        kind, _, name = key.decode().partition("/")
    except UnicodeDecodeError:
        raise _Unreadable("its key is not UTF-8") from None
    if kind not in ("alias", "promotion", "worker") or not name:
        raise _Unreadable("its key begins with neither `alias/`, `promotion/` nor `worker/`")
    return kind, name


def _promotion(value: bytes, **named: str) -> Promotion:
    promotion = _decoded(value, Promotion)
    _same(named, {"alias": promotion.alias, "id": promotion.id})
    return promotion


def _report(worker: str, value: bytes) -> Report:
    report = _decoded(value, Report)
    _same({"worker": worker}, {"worker": report.worker})
    return report


def _decoded(value: bytes, as_type: type[_R]) -> _R:
    try:
        schema = msgspec.json.decode(value, type=_Schema).schema
        if schema != SCHEMA:
            raise _Unreadable(f"schema {schema}, this build reads {SCHEMA}. A newer rec2pm may have written it")
        return msgspec.json.decode(value, type=as_type)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _Unreadable(str(error)) from None


def _same(key: Mapping[str, str], value: Mapping[str, str]) -> None:
    for what, named in key.items():
        if value[what] != named:
            raise _Unreadable(f"its key names {what} {named}, and its value {value[what]}")


def _put(records: dict[str, _R], name: str, record: _R | None) -> None:
    # The newest comes last, also where a key was written before.
    records.pop(name, None)
    if record is not None:
        records[name] = record


def _standing(promotions: Iterable[Promotion]) -> list[Promotion]:
    """The promotions that no rollback has undone, oldest first."""
    standing: list[Promotion] = []
    for each in promotions:
        if each.kind == "rollback":
            while standing and standing[-1].version != each.version:
                standing.pop()
        if standing and standing[-1].version == each.version:
            standing.pop()
        standing.append(each)
    return standing
