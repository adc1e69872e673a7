import re
from pathlib import Path

import polars as pl
import pytest
import torch

from model.training import recipe as recipes
from model.version.registry import Registry
from stream import cpu_cores, torch_threads
from stream.commands.main import main
from tests.model.quick import LOG, SMALL, small


@pytest.fixture
def log(tmp_path: Path) -> str:
    LOG.write_csv(tmp_path / "log.csv")
    return str(tmp_path / "log.csv")


def _rec2pm(*words: str) -> int:
    before = torch.get_num_threads()
    try:
        with pytest.raises(SystemExit) as ended:
            main.main(list(words))
    finally:
        torch.set_num_threads(before)
    return int(str(ended.value.code))


def _set(*settings: str) -> list[str]:
    return [word for setting in settings for word in ("--set", setting)]


def test_the_list_of_recipes_needs_no_log(capsys: pytest.CaptureFixture[str]) -> None:
    assert _rec2pm("train", "--list") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == recipes.names()
    assert all(len(line.split()) > 3 for line in lines)


def test_a_version_is_trained_retrained_and_named(tmp_path: Path, log: str, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "models")
    assert _rec2pm("train", log, "--out", out, "--name", "shop", "--threads", "1", *_set(*SMALL, "max_epochs=1")) == 0
    found = capsys.readouterr()
    assert found.out == "shop@1\n"
    assert found.err.startswith("training with 1 thread (--threads)\n")
    # The recipe is the one of the version that is started from.
    assert _rec2pm("train", log, "--out", out, "--name", "shop", "--from", "shop@1", *_set("seed=3")) == 0
    found = capsys.readouterr()
    assert found.out == "shop@2\n"
    assert "NDCG@10" in found.err
    assert re.search(r"^wrote .*shop/2$", found.err, re.MULTILINE)


def test_threads_follow_the_cores_that_may_be_used_and_devices_share_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu_cores, "usable_cores", lambda: cpu_cores.Cores(5, "the CPU quota is 5.5 of 64 cores"))
    set_to: list[int] = []
    monkeypatch.setattr(torch_threads, "use_threads", set_to.append)
    for words in ([], ["--devices", "2"], ["--devices", "8"], ["--threads", "3", "--devices", "2"]):
        assert _rec2pm("train", "no.csv", "--out", str(tmp_path), *words) == 1
    assert set_to == [5, 2, 1, 3]
    assert "training with 5 threads (the CPU quota is 5.5 of 64 cores)\n" in capsys.readouterr().err


def test_a_memory_format_is_kept_only_of_a_version_to_start_from(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _rec2pm("train", "no.csv", "--out", str(tmp_path), "--keep-memory-format") == 2
    assert "--keep-memory-format needs --from" in capsys.readouterr().err


def test_a_column_of_the_log_says_what_items_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    genres = LOG.with_columns(genre=pl.col("item_id").str.head(1))
    genres.write_csv(tmp_path / "log.csv")
    common = ["train", str(tmp_path / "log.csv"), "--out", str(tmp_path / "models"), "--name", "holo"]
    holo = [*_set(*small("holomambarec"), "max_epochs=1"), "--recipe", "holomambarec"]
    assert _rec2pm(*common, *holo, "--attribute-column", "genre") == 0
    assert capsys.readouterr().out == "holo@1\n"
    config = Registry(tmp_path / "models").resolve("holo").manifest().config
    assert config["attributes"]["column"] == "genre"
    assert 2 < config["attributes"]["values"] <= genres["genre"].n_unique()
    for column, code, message in (
        (
            "colour",
            1,
            "no column 'colour'. The log has user_id, item_id, timestamp, genre (separated by ','). Give the name of the column with --attribute",
        ),
    ):
        assert _rec2pm(*common, *holo, "--attribute-column", column) == code
        assert message in capsys.readouterr().err
    assert _rec2pm(*common, "--recipe", "full-sasrec", "--attribute-column", "genre") == 2
    assert "attribute column 'genre': full reads no attributes" in capsys.readouterr().err
    # The next day: the recipe is the version's, the column is the log's.
    assert _rec2pm(*common, "--from", "holo", *_set("seed=3")) == 1
    assert "--attribute-column" in capsys.readouterr().err
    assert _rec2pm(*common, "--from", "holo", "--attribute-column", "genre", *_set("seed=3")) == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--recipe", "rec2pm-o-sasrek"], "did you mean rec2pm-o-sasrec"),
        (["--set", "segments"], "is not KEY=VALUE"),
        (["--set", "n_items=3"], "unknown field 'n_items'"),
        (["--set", "attributes=3"], "unknown field 'attributes'"),
        (["--resume", "--set", "batch=0"], "batch is 0, must be at least 1"),
    ],
)
def test_a_recipe_that_cannot_be_is_wrong_usage(
    tmp_path: Path, log: str, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert _rec2pm("train", log, "--out", str(tmp_path / "models"), *words) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "models").exists()


def test_a_log_nothing_can_be_learned_from_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty.csv").write_text("user_id,item_id,timestamp\n")
    assert _rec2pm("train", str(tmp_path / "empty.csv"), "--out", str(tmp_path / "models")) == 1
    assert "the log is empty" in capsys.readouterr().err
    LOG.with_columns(user_id=1).write_csv(tmp_path / "one.csv")
    assert _rec2pm("train", str(tmp_path / "one.csv"), "--out", str(tmp_path / "models")) == 1
    assert "the log has one user" in capsys.readouterr().err
    assert not list((tmp_path / "models").rglob("*"))
