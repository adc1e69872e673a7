"""`rec2pm models list | show | verify | diff`: what they say of versions in a registry, Kafka aside."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result

from model.version import manifest as manifests
from model.version.manifest import FileFacts, Forgotten, KeptFormat, Manifest, Metrics, Training
from model.version.registry import Registry
from stream.commands.main import main
from stream.commands.models.diff import changed
from stream.commands.models.facts import facts
from stream.commands.models.listing import listing_json, listing_lines
from stream.promotion.record import Models
from tests.model import tiny
from tests.stream.promotion.promotions import promotion

TRAINING = Training(
    log="plays.parquet",
    rows=1_000_209,
    users=6_040,
    items=60,
    from_ms=956_703_932_000,
    until_ms=1_046_454_590_000,
    split="the last tenth",
    seed=3,
    epochs=12,
    best_epoch=9,
    wall_s=123.4,
    samples=99_999,
    ended="patience",
)
METRICS = Metrics(targets=1_234, hr_at_10=0.35, ndcg_at_10=0.2135, popularity_hr_at_10=0.05, popularity_ndcg_at_10=0.02)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """films@1, and films@2 with other weights, six other items and another learning rate."""
    root = tmp_path_factory.mktemp("models")
    for seed in (0, 1):
        network = tiny.serving(seed)
        manifest = replace(
            tiny.manifest(network, "films"),
            config={"layers": 3, "optimizer": {"lr": 0.1 * (1 + seed)}},
            training=TRAINING,
            metrics=METRICS,
            kept_format=KeptFormat(of="films@1", users=500, ndcg_at_10_own=0.22, ndcg_at_10_kept=0.21)
            if seed
            else None,
            forgotten=Forgotten(users=3, until={"10": 5, "2": 7}) if seed else None,
        )
        Registry(root).add(network, manifest, [f"item-{row + 6 * seed}" for row in range(1, tiny.V + 1)])
    return root


@pytest.fixture
def root(made: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(made, tmp_path / "models"))


def run(root: Path, *arguments: str, code: int = 0) -> Result:
    done = CliRunner().invoke(main, ["models", *arguments], env={"REC2PM_MODELS": str(root)})
    assert done.exit_code == code, (done.output, done.exception)
    return done


def test_a_list_has_the_aliases_and_fits_100_columns(made: Path) -> None:
    versions = [facts(each) for each in Registry(made).versions("films")]
    models = Models()
    models.aliases = {
        "champion": promotion("films@2", sha256=versions[1].sha256),
        "other": promotion("films@1", alias="other"),  # the number of a version of another registry
    }
    lines = list(listing_lines(versions, models))
    assert lines[0].split() == [
        "VERSION",
        "ALIASES",
        "KIND",
        "MEMORY",
        "FORMAT",
        "SIZE",
        "NDCG@10",
        "TRAINED",
        "FROM",
        "UNTIL",
    ]
    assert lines[1].split()[:3] == ["films@1", "-", "rec2pm-o"]
    assert lines[2].split()[:3] == ["films@2", "champion", "rec2pm-o"]
    assert lines[2].endswith("  .2135  2000-04-25    2003-02-28")
    assert max(map(len, lines[:3])) <= 100
    assert lines[3:] == ["other is films@1, which is not in this registry: it was promoted from /models/films/1"]
    assert [json.loads(line)["aliases"] for line in listing_json(versions, models)] == [[], ["champion"]]
    assert [json.loads(line)["aliases"] for line in listing_json(versions, None)] == [None, None]


def test_show_says_everything_that_the_manifest_says(made: Path) -> None:
    said = run(made, "show", "films").stdout
    version = Registry(made).resolve("films@2")
    for words in (
        "films@2\n",
        version.digest(),
        "48 floats, 192 bytes per user",
        "of 12 interactions",
        "60 items",
        f"{sum(each.numel() for each in tiny.serving(1).state_dict().values()):,} parameters",
        "plays.parquet: 1,000,209 interactions of 6,040 users with 60 items",
        "from 2000-04-25T23:05:32Z until 2003-02-28T17:49:50Z",
        "the last tenth",
        "12 epochs, the best was 9; 99,999 windows in 123 s, seed 3, ended by patience",
        "NDCG@10 .2135, HR@10 .3500 on 1,234 targets; popular items: NDCG@10 .0200, HR@10 .0500",
        "of films@1: NDCG@10 .2100 with memories that it wrote, .2200 with own ones, 500 users",
        "3 users; null values obeyed up to offset (2: 7, 10: 5)",
        "optimizer.lr  0.2",
    ):
        assert words in said, words
    for name, file in version.manifest().files.items():
        assert f"{name} " in said
        assert file.sha256 in said
    told = json.loads(run(made, "show", "films@2", "--json").stdout)
    assert {key: told[key] for key in msgspec.to_builtins(version.manifest())} == msgspec.to_builtins(
        version.manifest()
    )
    assert (told["uri"], told["sha256"]) == (version.uri, version.digest())


def test_a_whole_version_passes(made: Path) -> None:
    said = run(made, "verify", "films@1").stdout.splitlines()
    assert [line.split()[0] for line in said] == ["PASS"] * 7
    assert said[-1].startswith("PASS trial: contract and golden lists are right; loaded in ")


def remove(file: Path) -> None:
    file.unlink()


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


@pytest.mark.parametrize("damage", [remove, cut, flip], ids=lambda each: each.__name__)
@pytest.mark.parametrize("name", ["model.pt", "weights.safetensors", "catalogue.json", "golden.json"])
def test_a_damaged_file_fails_by_its_name_and_nothing_of_the_version_is_run(
    root: Path, name: str, damage: Callable[[Path], None]
) -> None:
    damage(root / "films" / "1" / name)
    said = run(root, "verify", "films@1", code=1).stdout.splitlines()
    (failed,) = [line for line in said if line.startswith("FAIL")]
    assert f"films/1/{name}" in failed
    assert said[-1] == "left out weights, contract and golden lists: a file is missing or is another one"


def test_a_version_without_a_readable_manifest_fails(root: Path) -> None:
    (root / "films/1/manifest.json").write_text("{")
    assert run(root, "verify", "films@1", code=1).stdout.startswith("FAIL ")
    (root / "films/1/manifest.json").unlink()
    assert "no such file" in run(root, "verify", "films@1", code=1).stdout


def test_a_version_in_the_folder_of_another_fails(root: Path) -> None:
    shutil.rmtree(root / "films/1")
    shutil.copytree(root / "films/2", root / "films/1")
    assert "FAIL manifest.json says that it is films@2" in run(root, "verify", "films@1", code=1).stdout


def signed(root: Path, name: str, data: bytes) -> None:
    """Another file, and a manifest that says so: what a hash cannot find."""
    folder = root / "films" / "1"
    (folder / name).write_bytes(data)
    manifest: Manifest = manifests.decode((folder / "manifest.json").read_bytes(), "")
    files: dict[str, FileFacts] = {**manifest.files, name: manifests.facts(data)}
    (folder / "manifest.json").write_bytes(manifests.encode(replace(manifest, files=files)))


def test_weights_of_another_version_and_golden_lists_of_another_fail(root: Path) -> None:
    for name in ("weights.safetensors", "golden.json"):
        signed(root, name, (root / "films" / "2" / name).read_bytes())
    failed = [line for line in run(root, "verify", "films@1", code=1).stdout.splitlines() if line.startswith("FAIL")]
    assert len(failed) == 2, failed
    assert "the weights in weights.safetensors have weights_sha256" in failed[0]
    assert failed[1].startswith("FAIL trial: ")


def test_diff_says_what_changes_and_what_that_means(made: Path) -> None:
    said = run(made, "diff", "films@1", "films@2").stdout.splitlines()
    assert said[0] == "films@1 → films@2"
    assert said[1].startswith("memory format: rec2pm-o/3x16/")
    assert "is rebuilt from the kept segments" in said[1]
    assert said[2:5] == [
        "catalogue: 60 → 60 items; 6 new, 6 gone",
        "    new: item-61, item-62, item-63, item-64, item-65, …",
        "    gone: item-1, item-2, item-3, item-4, item-5, …",
    ]
    assert "    optimizer.lr: 0.1 → 0.2" in said
    assert not [line for line in said if "layers" in line]
    assert "memory per user: the same, 192 bytes" in said
    assert said[-1] == "speed: not measured (--measure)"
    told = json.loads(run(made, "diff", "films@1", "films@2", "--json").stdout)
    assert told["config"] == {"optimizer.lr": [0.1, 0.2]}
    assert told["items_gone"] == [f"item-{row}" for row in range(1, 7)]
    assert (told["same_memory_format"], told["trials"]) == (False, None)


def test_a_version_does_not_differ_from_itself(made: Path) -> None:
    said = run(made, "diff", "films@1", "films@1").stdout
    assert "memory format: the same" in said
    assert "0 new, 0 gone" in said
    assert "configuration: the same" in said


def test_diff_measures_both_if_asked(made: Path) -> None:
    told = json.loads(run(made, "diff", "films@1", "films@2", "--measure", "--json").stdout)
    assert all(told["trials"][side]["p95_ms"] > 0 for side in ("old", "new"))


def test_changes_are_said_with_their_share() -> None:
    assert changed(100, 125, lambda size: f"{size} B") == "100 B → 125 B (+25 %)"
    assert changed(0, 125, lambda size: f"{size} B") == "0 B → 125 B"
    assert changed(1_000_000, 1_000_001, lambda size: f"{size / 1e6:.1f} MB") == "the same, 1.0 MB"
