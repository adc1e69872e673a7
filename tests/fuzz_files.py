"""Made files through the reader of logs: `python -m tests.fuzz_files 2000 --seed 1`.

Each file is made of known values in a random format, encoding and layout. What the reader gives must be what the rules
of model.ids and model.times say of each value; if they refuse one, the reader must refuse the file. Some files are then
damaged: they are read or refused, in our words. What is read goes on as `rec2pm produce` sends it, and a worker must
find the same users, items and times in it.
"""

import argparse
import bz2
import csv
import gzip
import io
import json
import lzma
import random
import re
import tempfile
from collections import Counter
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import polars as pl

from model.errors import LogUnreadable
from model.ids import DECIMAL, HIGHEST, LOWEST, Id, IdType, checked, stated
from model.log import Columns, open_log
from model.times import TimeRule
from state.interaction import item_key
from stream.commands.send_log import Shape
from stream.event import EventReader, Fields

Row = tuple[Any, Any, Any]
_SEPARATORS: Final = (",", ";", "\t", "|", "::")
_LETTERS: Final = "abcXYZ019_-. éß"
_TEXTS: Final = (
    "NA",
    "true",
    "1e5",
    "2024-01-01",
    "7.0",
    "-0",
    "00",
    "+7",
    '5" x',
    "a,b",
    "a;b",
    "'",
    "\\N",
    "a\tb",
    "#1",
    "x|y",
)


@dataclass(frozen=True)
class Made:
    """A file, and how it is to be read."""

    path: Path
    rows: list[Row]
    """The values, as the format holds them."""
    typed: bool
    id_type: IdType | None
    rule: TimeRule
    columns: Columns
    what: str


def make(draw: random.Random, folder: Path) -> Made:
    kind = draw.choice(["parquet", "json", "separated", "separated"])
    rule = draw.choice([TimeRule(), TimeRule(), TimeRule("s"), TimeRule("ms"), TimeRule(None, 0, 4 * 10**12)])
    id_type = draw.choice([None, None, "text", "integer"])
    count = draw.choice([1, 2, 5, 40])
    bad = draw.random() < 0.25
    users, items = (_ids(draw, count, kind, bad) for _ in range(2))
    rows = list(zip(users, items, _times(draw, count, kind, rule, bad), strict=True))
    made = {"parquet": _parquet, "json": _json, "separated": _separated}[kind](draw, rows, folder)
    return replace(made, id_type=id_type, rule=rule)


def _ids(draw: random.Random, count: int, kind: str, bad: bool) -> list[Any]:
    kinds: dict[str, Any] = {
        "small": lambda: draw.randrange(50),
        "signed": lambda: draw.randrange(LOWEST, 1 << 63),
        "hash": lambda: draw.randrange(HIGHEST + 1),
        "padded": lambda: f"{draw.randrange(10**5):05}",
        "large": lambda: str(draw.randrange(10**19, 10**22)),
        "text": lambda: "".join(draw.choices(_LETTERS, k=draw.randrange(1, 9))),
        "strange": lambda: draw.choice(_TEXTS),
        "long": lambda: "é" * draw.choice([1, 126, 127]),
        "whole": lambda: float(draw.randrange(50)),
    }
    wrong: list[Any] = ["", "é" * 128, "x" * 5000, None, "\x1b[31m" + "y" * 300]
    wrong += [] if kind == "separated" else [True, 7.5, 1e300]
    wrong += [10**21, [1], {"a": 1}] if kind == "json" else []
    chosen = draw.sample(sorted(kinds), draw.choice([1, 1, 2]) if kind != "parquet" else 1)
    found = [kinds[draw.choice(chosen)]() for _ in range(count)]
    if bad and draw.random() < 0.5:
        found[draw.randrange(count)] = draw.choice(wrong)
    return found


def _times(draw: random.Random, count: int, kind: str, rule: TimeRule, bad: bool) -> list[Any]:
    def moment() -> int:
        return draw.randrange(946_684_800_000, 1_900_000_000_000)

    def iso() -> str:
        when = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=moment())
        zone = draw.choice(["Z", "", "+02:00", "-0530", " UTC", "+01"])
        return f"{when:%Y-%m-%d}{draw.choice('T ')}{when:%H:%M:%S}{draw.choice(['', '.5', '.123456789'])}{zone}"

    numbers: dict[str, Any] = {
        "s": lambda: moment() // 1000,
        "ms": moment,
        "us": lambda: moment() * 1000,
        "ns": lambda: moment() * 10**6,
        "float": lambda: moment() / 1000,
        "whole": lambda: float(moment() // 1000),
    }
    texts: dict[str, Any] = {
        "iso": iso,
        "date": lambda: iso()[:10],
        "minute": lambda: iso()[:16],
        "digits": lambda: str(moment()),
    }
    if rule.unit is not None:
        numbers = {name: numbers[name] for name in ([rule.unit] if rule.unit == "ms" else ["s", "float", "whole"])}
        texts.pop("digits")
    kinds = {**numbers, **texts}
    mixed = draw.random() < 0.3 and kind != "parquet"
    chosen = draw.sample(sorted(kinds), 2 if mixed else 1)
    found = [kinds[draw.choice(chosen)]() for _ in range(count)]
    if bad and draw.random() < 0.5:
        wrong: list[Any] = [0, -5, 10**13, "yesterday", "2024-02-30", "", None, 10**20, "1" * 3000]
        found[draw.randrange(count)] = draw.choice(wrong)
    return found


def _parquet(draw: random.Random, rows: list[Row], folder: Path) -> Made:
    columns: dict[str, pl.Series] = {}
    for name, values in zip(("user_id", "item_id", "timestamp"), zip(*rows, strict=True), strict=True):
        columns[name] = _series(draw, name, list(values))
    frame = pl.DataFrame(columns)
    path = folder / "log.parquet"
    nested = draw.random() < 0.2
    (frame.select("user_id", "timestamp", product=pl.struct(id="item_id")) if nested else frame).write_parquet(path)
    item = "product.id" if nested else "item_id"
    what = f"parquet {dict(frame.schema)}"
    return Made(path, frame.rows(), True, None, TimeRule(), Columns(item=item), what)


def _series(draw: random.Random, name: str, values: list[Any]) -> pl.Series:
    kinds = {type(value) for value in values if value is not None}
    if kinds == {int}:
        low, high = min(v for v in values if v is not None), max(v for v in values if v is not None)
        fits = [
            dtype
            for dtype, least, most in (
                (pl.Int64, LOWEST, (1 << 63) - 1),
                (pl.UInt64, 0, HIGHEST),
                (pl.Int32, -(1 << 31), (1 << 31) - 1),
            )
            if least <= low and high <= most
        ]
        if fits:
            return pl.Series(name, values, dtype=draw.choice(fits))
    if kinds == {float} or kinds == {bool}:
        return pl.Series(name, values)
    texts = [value if value is None else str(value) for value in values]
    return pl.Series(name, texts, dtype=draw.choice([pl.String, pl.Categorical]))


def _json(draw: random.Random, rows: list[Row], folder: Path) -> Made:
    nested, ascii_only = draw.random() < 0.3, draw.random() < 0.5
    lines = []
    for user, item, time in rows:
        record = {"user_id": user, "timestamp": time, "x": draw.choice([None, float("nan"), [1, {"y": 2}], "ü"])}
        record.update({"product": {"id": item, "z": 1}} if nested else {"item_id": item})
        lines.append(json.dumps(record, ensure_ascii=ascii_only))
    encoding = draw.choice(["utf-8", "utf-8-sig", "utf-16", "utf-16-le"])
    path = _written(draw, "\n".join(lines) + draw.choice(["", "\n", "\n\n"]), encoding, folder / "log.jsonl")
    columns = Columns(item="product.id" if nested else "item_id")
    return Made(path, rows, True, None, TimeRule(), columns, f"json {encoding}")


def _separated(draw: random.Random, rows: list[Row], folder: Path) -> Made:
    separator, extra = draw.choice(_SEPARATORS), draw.random() < 0.5
    cells = [[str("" if value is None else value) for value in row] for row in rows]
    if separator == "::":
        # Without quotes, a field cannot have the separator.
        cells = [[cell.replace("::", ".") for cell in row] for row in cells]
    header = ["user_id", "item_id", *(["title"] if extra else []), "timestamp"]
    quoting = draw.choice([csv.QUOTE_MINIMAL, csv.QUOTE_ALL])

    def read(cell: str) -> str:
        """What a reader makes of a cell: blanks at its ends are no part of it, unless it has quotes."""
        buffer = io.StringIO()
        if separator != "::":
            csv.writer(buffer, delimiter=separator, quoting=quoting, lineterminator="\n").writerow([cell, "x"])
        return cell if buffer.getvalue().startswith('"') else cell.strip(" ")

    lines = [[row[0], row[1], *(["5"] if extra else []), row[2]] for row in cells]
    if draw.random() < 0.2:
        header = [f"{name}:token" for name in header]
    if separator == "::":
        text = "".join("::".join(line) + "\n" for line in [header, *lines])
    else:
        buffer = io.StringIO()
        csv.writer(buffer, delimiter=separator, quoting=quoting, lineterminator="\n").writerows([header, *lines])
        text = buffer.getvalue()
    if draw.random() < 0.3:
        text = text.replace("\n", "\r\n")
    if draw.random() < 0.3:
        text = text.rstrip("\r\n")
    encoding = draw.choice(["utf-8", "utf-8-sig", "utf-16", "utf-16-be", "latin-1"])
    path = _written(draw, text, encoding, folder / draw.choice(["log.csv", "log.tsv", "log.dat", "log.txt", "log"]))
    found: list[Row] = [(read(user), read(item), read(time)) for user, item, time in cells]
    return Made(path, found, False, None, TimeRule(), Columns(), f"{separator!r} {encoding}")


def _written(draw: random.Random, text: str, encoding: str, path: Path) -> Path:
    compress = draw.choice([bytes, bytes, gzip.compress, bz2.compress, lzma.compress])
    path.write_bytes(compress(text.encode(encoding)))
    return path


def expected(made: Made) -> list[tuple[str, str, int]] | None:
    """What the rules say; None if they refuse a value. Ids as text, because an integer is its decimal text."""
    found = []
    try:
        for user, item, time in made.rows:
            ms = made.rule.milliseconds(time)
            if ms is None:
                return None
            found.append((str(_id(user, made.id_type)), str(_id(item, made.id_type)), ms))
    except ValueError:
        return None
    return found


def _id(value: Any, id_type: IdType | None) -> Id:
    return checked(value) if id_type is None else stated(value, id_type)


def check(made: Made) -> str:
    """Read a file, and compare. Returns what happened: `read` or `refused`. Raises AssertionError if it is wrong."""
    wanted = expected(made)
    rows, refusal = _read(made)
    if rows is None:
        assert wanted is None, f"{made}: refused: {refusal}"
        return "refused"
    assert wanted is not None, f"{made}: read as {rows[:3]}, though the rules refuse a value"
    assert [(str(user), str(item), ms) for user, item, ms in rows] == wanted, (
        f"{made}: {rows[:3]}, expected {wanted[:3]}"
    )
    if not made.typed and made.id_type is None:
        for index in (0, 1):
            values = [row[index] for row in made.rows]
            numbers = [int(value) for value in values if re.fullmatch(DECIMAL, value)]
            whole = len(numbers) == len(values) and all(LOWEST <= number <= HIGHEST for number in numbers)
            whole = whole and not (min(numbers) < 0 and max(numbers) >= 1 << 63)
            assert all(isinstance(row[index], int) == whole for row in rows), f"{made}: {rows[:3]}"
    _same_in_a_worker(rows, made.rule)
    return "read"


def _same_in_a_worker(rows: list[tuple[Any, ...]], rule: TimeRule) -> None:
    for fields in (
        Fields(),
        Fields(("product", "id"), ("product", "at"), ("who",), ("type",), frozenset({"view", "buy"})),
    ):
        for times in (
            rule,
            TimeRule("s", rule.earliest_ms, rule.latest_ms),
            TimeRule("ns", rule.earliest_ms, rule.latest_ms),
        ):
            shape, reader = Shape(fields, times), EventReader(fields, times)
            for user, item, ms in rows[:10]:
                key = str(user).encode()
                read = reader.read(shape.value(user, item, ms), key)
                assert read is not None, (user, item, ms, fields)
                assert (item_key(read[0]), read[1]) == (item_key(item), ms), (user, item, ms, read)


def damaged(draw: random.Random, made: Made) -> None:
    """The file with some bytes changed, missing or added."""
    content = bytearray(made.path.read_bytes())
    for _ in range(draw.choice([1, 3, 30])):
        at = draw.randrange(len(content) + 1)
        match draw.randrange(3):
            case 0:
                content[at : at + 1] = draw.choice([b"\0", b"\xff", b'"', b"\n", b"\r", b",", draw.randbytes(1)])
            case 1:
                del content[at : at + draw.choice([1, 5, 1000])]
            case 2:
                content[at:at] = draw.randbytes(draw.choice([1, 4, 200]))
    made.path.write_bytes(bytes(content))


def check_damaged(made: Made) -> str:
    """Read a damaged file: any rows, or a refusal in our words."""
    return "damaged, refused" if _read(made)[0] is None else "damaged, read"


def _read(made: Made) -> tuple[list[tuple[Any, ...]] | None, str]:
    """The rows; None and the refusal if the file is refused."""
    try:
        log = open_log(made.path, made.columns, id_type=made.id_type, times=made.rule)
        return log.interactions.collect().rows(), ""
    except LogUnreadable as error:
        refusal = str(error)
    _in_our_words(refusal)
    return None, refusal


def _in_our_words(message: str) -> None:
    assert len(message) < 1200, len(message)
    assert message.isprintable(), repr(message)
    for foreign in (
        "polars",
        "Polars",
        "ComputeError",
        "schema_overrides",
        "infer_schema",
        "ignore_errors",
        "Traceback",
    ):
        assert foreign not in message, message


def run(count: int, seed: int, folder: Path) -> Counter[str]:
    """Make and check files; every third one is then damaged and read again."""
    outcomes: Counter[str] = Counter()
    for number in range(count):
        draw = random.Random(f"{seed}-{number}")
        here = folder / str(number)
        here.mkdir()
        made = make(draw, here)
        try:
            outcomes[check(made)] += 1
            if number % 3 == 0:
                damaged(draw, made)
                outcomes[check_damaged(made)] += 1
        except Exception as error:
            raise AssertionError(f"file {number} of seed {seed} ({made.what}): {made.path}") from error
    return outcomes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("count", type=int, nargs="?", default=2000)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fuzz-files-") as folder:
        outcomes = run(asked.count, asked.seed, Path(folder))
    print(f"{asked.count} files of seed {asked.seed}: {dict(sorted(outcomes.items()))}")


if __name__ == "__main__":
    main()
