"""`rec2pm models promote` beside a broker: what passes the gate is a record, what does not is told why."""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from model.version.manifest import GOLDEN, MANIFEST, FileFacts, encode
from model.version.registry import ModelVersion, Registry
from model.version.runtime import Runtime
from stream.commands.broker import Broker
from stream.commands.main import main
from stream.kafka.models_topic import read_models
from stream.promotion.promote import Wish, absolute
from stream.promotion.record import Models
from tests.integration.test_worker import Application, create_topics
from tests.model import tiny
from tests.stream.promotion.logs import predicted_by

pytestmark = pytest.mark.usefixtures("quick_gate")


@dataclass
class Shop:
    """An application whose registry is a folder of tiny models."""

    application: Application
    registry: Path

    def run(self, *arguments: object) -> Result:
        environ = self.application.environ({"MODELS": self.registry})
        return CliRunner().invoke(main, ["models", *map(str, arguments)], env=environ)

    def promote(self, *arguments: object) -> Result:
        return self.run("promote", *arguments)

    def models(self) -> Models:
        return read_models({"bootstrap.servers": self.application.bootstrap}, self.application.name)

    def sell(self, items: Sequence[object], users: int = 20) -> None:
        """One interaction with each item, by some users in turn."""
        self.application.produce(
            [
                (f"user-{at % users}".encode(), json.dumps({"item": item, "ts": 1_767_225_600_000 + at}).encode())
                for at, item in enumerate(items)
            ]
        )


@pytest.fixture(scope="module")
def tiny_versions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """tiny@1 and tiny@2 of the same weights, tiny@3 of others."""
    root = tmp_path_factory.mktemp("registry")
    for seed in (0, 0, 1):
        tiny.add(root, seed=seed)
    return root


@pytest.fixture
def shop(broker: Broker, tiny_versions: Path, tmp_path: Path) -> Iterator[Shop]:
    made = Application(broker.bootstrap, tmp_path)
    create_topics(made)
    shutil.copytree(tiny_versions, tmp_path / "models")
    yield Shop(made, tmp_path / "models")
    made.close()


def lines(result: Result, mark: str) -> dict[str, str]:
    """Check → figure of the lines with this mark."""
    return {
        name: figure
        for line in result.stdout.splitlines()
        if line.startswith(f"{mark} ")
        for name, _, figure in [line.removeprefix(f"{mark} ").partition(": ")]
    }


def test_each_promotion_is_compared_with_the_one_before_and_is_a_record(shop: Shop, tmp_path: Path) -> None:
    shop.sell(tiny.IDS * 3)
    registry = Registry(shop.registry)
    predicted_by(Runtime.load(registry.resolve("tiny@1").uri), 350).write_parquet(tmp_path / "log.parquet")

    first = shop.promote("tiny@1")
    assert first.exit_code == 0, first.output
    assert lines(first, "left out") == {"quality": "there is no champion yet", "lists": "there is no champion yet"}
    assert list(lines(first, "PASS")) == ["files", "trial", "known items"]
    assert lines(first, "PASS")["known items"].startswith("100.0% of the newest 180 interactions of")
    assert "promoted tiny@1 as champion, the first (promotion 0" in first.stdout
    one, manifest = shop.models().aliases["champion"], registry.resolve("tiny@1").manifest()
    assert (one.version, one.previous, one.expected, one.forced) == ("tiny@1", None, None, ())
    assert (one.memory_format, one.segment_length) == (manifest.memory_format, manifest.segment_length)
    assert one.sha256 == registry.resolve("tiny@1").digest()
    assert one.bytes == sum(
        path.stat().st_size for path in (shop.registry / "tiny/1").iterdir() if path.name != "claim"
    )

    twin = shop.promote("tiny@2", "--log", tmp_path / "log.parquet")
    assert twin.exit_code == 0, twin.output
    assert list(lines(twin, "PASS")) == ["files", "trial", "known items", "quality", "lists"]
    assert "the champion: a list in " in lines(twin, "PASS")["trial"]
    assert "NDCG@10 1.0000, the champion's 1.0000" in lines(twin, "PASS")["quality"]
    assert lines(twin, "PASS")["lists"].startswith("100% of the champion's first 10 are in its lists too (20 users")
    assert "promoted tiny@2 as champion, in place of tiny@1 (" in twin.stdout
    assert "memories are read as they are" in twin.stdout

    forced = shop.promote("tiny", "--log", tmp_path / "log.parquet", "--force", "--why", "a test of it")
    assert "it is worse than the 0.01 that may be lost" in lines(forced, "FAIL")["quality"]
    assert forced.exit_code == 0, forced.output
    assert "promoted tiny@3 as champion, in place of tiny@2, in spite of quality (" in forced.stdout
    assert "memories are rebuilt from the kept segments: it has another memory format" in forced.stdout
    assert "`rec2pm models status --wait`" in forced.stdout
    three, before = shop.models().aliases["champion"], list(shop.models().history.values())[1]
    assert (three.version, three.previous, three.expected) == ("tiny@3", "tiny@2", before.id)
    assert (three.why, three.forced) == ("a test of it", ("quality",))
    results = {check.name: check.result for check in three.gate}
    assert results == {
        "files": "passed",
        "trial": "passed",
        "known items": "passed",
        "quality": "failed",
        "lists": "passed",
    }
    assert [each.version for each in shop.models().history.values()] == ["tiny@1", "tiny@2", "tiny@3"]


def test_the_champion_itself_is_compared_with_nothing(shop: Shop) -> None:
    assert shop.promote("tiny@1").exit_code == 0
    again = shop.promote("tiny@1")
    assert lines(again, "left out")["lists"] == "it is the champion itself"
    assert len(shop.models().history) == 2


def test_a_dry_run_writes_nothing(shop: Shop) -> None:
    done = shop.promote("tiny@1", "--dry-run")
    assert done.exit_code == 0, done.output
    assert "tiny@1 may become champion. Nothing was promoted (--dry-run)" in done.stdout
    assert shop.models().aliases == {}


def test_an_alias_of_its_own_leaves_the_champion_alone(shop: Shop) -> None:
    assert shop.promote("tiny@1").exit_code == 0
    done = shop.promote("tiny@3", "--alias", "challenger")
    assert "promoted tiny@3 as challenger, the first" in done.stdout, done.output
    assert {alias: each.version for alias, each in shop.models().aliases.items()} == {
        "champion": "tiny@1",
        "challenger": "tiny@3",
    }


def test_force_needs_a_reason(shop: Shop) -> None:
    for why in ((), ("--why", " ")):
        done = shop.promote("tiny@1", "--force", *why)
        assert done.exit_code == 2
        assert "--force needs --why TEXT" in done.output


@pytest.mark.parametrize("alias", ["none", "", "two words", ".hidden", "a/b"])
def test_an_alias_that_readers_would_pass_over_is_refused(alias: str) -> None:
    for command in ("promote", "rollback"):
        named = ("tiny@1",) if command == "promote" else ()
        done = CliRunner().invoke(main, ["models", command, *named, "--alias", alias])
        assert done.exit_code == 2
        assert f"{alias!r} cannot be an alias" in done.output
    with pytest.raises(ValueError, match="cannot be an alias"):
        Wish(reference="tiny@1", who="ada", alias=alias)


def test_a_folder_in_a_record_is_one_that_every_process_finds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert absolute("var/models/films/3") == str(tmp_path / "var/models/films/3")
    assert absolute("s3://shop/models/films/3") == "s3://shop/models/films/3"


# --- candidates that fail ---


def _other_segments(root: Path) -> ModelVersion:
    return tiny.add(root, seed=0, config=tiny.table(segment_length=8))


def _one_byte(root: Path) -> ModelVersion:
    version = tiny.add(root)
    path = root / "tiny" / str(version.version) / "model.pt"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    return version


def _newer_torch(root: Path) -> ModelVersion:
    return _with_manifest(root, lambda text: text.replace('"torch_version": "2.', '"torch_version": "9.'))


def _another_program(root: Path) -> ModelVersion:
    return _with_manifest(root, lambda text: text.replace('"torchscript"', '"onnx"'))


def _with_manifest(root: Path, changed: Callable[[str], str]) -> ModelVersion:
    version = tiny.add(root)
    path = root / "tiny" / str(version.version) / MANIFEST
    before = path.read_text()
    path.write_text(changed(before))
    assert path.read_text() != before
    return version


def _another_shop(root: Path) -> ModelVersion:
    made = tiny.serving()
    return Registry(root).add(made, tiny.manifest(made), [f"book-{row}" for row in range(tiny.V)])


def _other_answers(root: Path) -> ModelVersion:
    """Its golden lists are those of other weights, and its manifest agrees."""
    version, other = tiny.add(root), tiny.add(root, "another", seed=5)
    data = other.read(GOLDEN)
    path = root / "tiny" / str(version.version)
    manifest = version.manifest()
    (path / GOLDEN).write_bytes(data)
    facts = FileFacts(bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
    (path / MANIFEST).write_bytes(encode(replace(manifest, files={**manifest.files, GOLDEN: facts})))
    return version


def _good(root: Path) -> ModelVersion:
    return tiny.add(root)


NOT_FORCED = {
    "a changed byte": (_one_byte, "it is another file, and was not loaded"),
    "another segment length": (_other_segments, "it folds segments of 8, the champion of 12"),
    "a newer torch": (_newer_torch, "wrote its program, and this is torch"),
    "another kind of program": (_another_program, "its program is 'onnx', this build runs torchscript"),
}
FORCED: dict[str, tuple[Callable[[Path], ModelVersion], tuple[str, ...], str, str]] = {
    "the catalogue of another shop": (_another_shop, (), "known items", "0.0% of the newest 180 interactions"),
    "other answers than in its training": (_other_answers, (), "trial", "golden"),
    "too slow to load": (_good, ("--timeout", "0.001"), "trial", "it did not end within"),
    "too large": (_good, ("--memory-mb", "9"), "trial", "it is too large for the memory there is: "),
}


@pytest.mark.parametrize(("make", "words"), NOT_FORCED.values(), ids=list(NOT_FORCED))
def test_what_every_worker_would_refuse_is_not_promoted_by_force(
    shop: Shop, make: Callable[[Path], ModelVersion], words: str
) -> None:
    if make is _other_segments:
        assert shop.promote("tiny@1").exit_code == 0
    candidate = make(shop.registry).reference
    before = shop.models()
    for force in ((), ("--force", "--why", "I know better")):
        done = shop.promote(candidate, *force)
        assert done.exit_code == 1, done.output
        assert words in lines(done, "FAIL")["files"]
        assert set(lines(done, "left out").values()) == {"its files cannot be used"}
        assert f"{candidate} is not promoted: files failed. --force does not pass over files" in done.stderr
    assert shop.models() == before


@pytest.mark.parametrize(("make", "options", "check", "words"), FORCED.values(), ids=list(FORCED))
def test_a_check_that_fails_is_in_the_way_until_somebody_says_why_not(
    shop: Shop, make: Callable[[Path], ModelVersion], options: tuple[str, ...], check: str, words: str
) -> None:
    shop.sell(tiny.IDS * 3)
    candidate = make(shop.registry).reference
    refused = shop.promote(candidate, *options)
    assert refused.exit_code == 1, refused.output
    assert words in lines(refused, "FAIL")[check]
    assert list(lines(refused, "FAIL")) == [check]
    assert f"{candidate} is not promoted: {check} failed. --force --why TEXT passes over that" in refused.stderr
    assert shop.models().aliases == {}
    forced = shop.promote(candidate, *options, "--force", "--why", "a new shop opens")
    assert forced.exit_code == 0, forced.output
    assert f"promoted {candidate} as champion, the first, in spite of {check} (" in forced.stdout
    record = shop.models().aliases["champion"]
    assert (record.version, record.forced, record.why) == (candidate, (check,), "a new shop opens")
    assert [each.name for each in record.gate if each.result == "failed"] == [check]


def test_a_champion_that_cannot_be_read_is_said_and_can_be_passed_over(shop: Shop) -> None:
    assert shop.promote("tiny@1").exit_code == 0
    shutil.rmtree(shop.registry / "tiny/1")
    done = shop.promote("tiny@3")
    assert done.exit_code == 1
    assert "the champion tiny@1 cannot be read: " in lines(done, "FAIL")["champion"]
    assert lines(done, "left out")["lists"] == "the champion cannot be read"
    assert shop.promote("tiny@3", "--force", "--why", "tiny@1 was deleted").exit_code == 0
    assert shop.models().aliases["champion"].forced == ("champion",)


def test_a_version_that_is_not_there_is_wrong_usage(shop: Shop) -> None:
    done = shop.promote("tiny@9")
    assert done.exit_code == 2
    assert "has no version '9' of tiny: it has 1, 2, 3" in done.stderr
