"""Local state is readable for its owner alone."""

import logging
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from state.store import Store, StoreMemory
from stream.errors import SettingsInvalid
from stream.state_folder import private
from stream.worker_name import claim


@pytest.fixture(autouse=True)
def _umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("there", [None, 0o755, 0o777, 0o750, 0o700])
def test_nobody_else_can_read_what_a_worker_keeps(tmp_path: Path, there: int | None) -> None:
    folder = tmp_path / "state" / "shop"
    if there is not None:
        folder.mkdir(parents=True)
        folder.chmod(there)
    assert private(folder) == folder
    claim(folder / "slots", "w1").release()
    store = Store(folder / "w1" / "0", StoreMemory(8 << 20))
    store.belong_to("changelog")
    store.flush()
    store.close()
    assert mode(folder) == 0o700
    assert mode(folder.parent) == (0o700 if there is None else 0o755)
    assert mode(folder.parent.parent) & 0o700 == 0o700
    below = [*folder.rglob("*")]
    assert len(below) > 5
    assert {path.name: oct(mode(path)) for path in below if mode(path) & 0o077} == {}


def test_folders_above_keep_what_an_operator_chose(tmp_path: Path) -> None:
    state = tmp_path / "data" / "state"
    state.mkdir(parents=True)
    state.chmod(0o755)
    private(state / "shop")
    assert mode(state) == 0o755


def test_a_folder_of_somebody_else_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(_: Path, __: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    folder = tmp_path / "shop"
    folder.mkdir(mode=0o755)
    monkeypatch.setattr(Path, "chmod", refuse)
    caplog.set_level(logging.WARNING)
    private(folder)
    assert caplog.messages == [
        f"state folder open to others folder={folder} mode=0755: [Errno 1] Operation not permitted"
    ]


def test_a_folder_that_cannot_be_made_is_a_wrong_setting(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsInvalid, match=r"REC2PM_STATE_DIR: .* cannot be used"):
        private(tmp_path / "file" / "shop")
