"""A version that shares compiled code computes what it computes when it is loaded on its own."""

import logging
from pathlib import Path

import numpy as np
import pytest
import torch

from model.networks.config import KINDS, NetworkConfig
from model.networks.memory_network import MemoryNetwork
from model.networks.memory_serving import MemoryServing
from model.version import golden, torchscript
from model.version.manifest import GOLDEN, PROGRAM
from model.version.registry import ModelVersion, Registry
from model.version.runtime import Runtime
from model.version.torchscript_archive import Archive
from tests.model import tiny

CASES = [
    *((kind, "sasrec") for kind in KINDS if kind != "holomambarec"),
    ("rec2pm-o", "hstu"),
    ("rec2pm-o", "overlap"),
    ("rec2pm-a", "write_from_memory"),
    ("trunc", "pos_time"),
]


def added(root: Path, seed: int, config: NetworkConfig, items: int = tiny.V) -> ModelVersion:
    """A version with so many items."""
    made = tiny.serving(seed, tiny.changed(config, n_items=items))
    ids = [f"item-{row}" for row in range(1, items + 1)]
    return Registry(root).add(made, tiny.manifest(made, "tiny", config.kind), ids)


def shares_code(one: Runtime, other: Runtime) -> bool:
    """Whether two programs have their compiled code in common."""
    return bool(one.artifact.program._c._type() == other.artifact.program._c._type())


def answers(runtime: Runtime) -> list[np.ndarray]:
    """Folds and lists of two users, with and without a memory."""
    rows = tiny.rows(2, tiny.L).numpy()
    times = 1_700_000_000_000 + np.arange(2 * tiny.L).reshape(2, tiny.L) * 1000 if runtime.uses_time else None
    now = None if times is None else times[:, -1] + 1000
    none = np.zeros((2, runtime.state_floats), np.float32)
    folded = runtime.fold(none, rows, times)
    again = runtime.fold(folded.memory, rows[:, ::-1].copy(), times)
    lengths, exclude = np.array([3, 0]), rows[:, :4]
    if (runtime.longest_prefix(again.memory) >= 5).all():
        again.hidden[:] = runtime.encode_prefixes(again.memory, rows[:, :5], np.array([5, 2]))[:, 1]
    listed = [runtime.recommend(memory, rows, lengths, 10, exclude, times, now) for memory in (none, again.memory)]
    ranked = runtime.rank(again.hidden, 10, exclude)
    return [
        again.memory,
        again.hidden,
        ranked.rows,
        ranked.scores,
        *(part for each in listed for part in (each.rows, each.scores)),
    ]


@pytest.mark.parametrize(("kind", "backbone"), CASES)
def test_it_computes_the_same_with_other_weights_and_more_items(tmp_path: Path, kind: str, backbone: str) -> None:
    config = tiny.config(kind, backbone)
    first, second = added(tmp_path, 1, config), added(tmp_path, 2, config, items=tiny.V + 7)
    serves = Runtime.load(first.uri)
    before = answers(serves)
    shared, alone = Runtime.load(second.uri, None, serves), Runtime.load(second.uri)
    assert shares_code(shared, serves)
    assert not shares_code(alone, serves)
    for mine, other in zip(answers(shared), answers(alone), strict=True):
        np.testing.assert_array_equal(mine, other)
    golden.check(shared._program, (Path(second.uri) / GOLDEN).read_bytes())
    assert shared.item_ids != serves.item_ids
    for mine, other in zip(answers(serves), before, strict=True):
        np.testing.assert_array_equal(mine, other)
    third = Runtime.load(first.uri, None, shared)
    assert shares_code(third, serves)
    for mine, other in zip(answers(third), before, strict=True):
        np.testing.assert_array_equal(mine, other)


@pytest.mark.parametrize("changed", [{"heads": 1}, {"layers": 2}, {"segment_length": 9}, {"backbone": "hstu"}])
def test_other_code_or_other_numbers_in_it_are_loaded_on_their_own(tmp_path: Path, changed: dict[str, object]) -> None:
    first = Runtime.load(added(tmp_path, 1, tiny.CONFIG).uri)
    config = tiny.changed(tiny.CONFIG, **changed)
    second = added(tmp_path, 1, config)
    found = Runtime.load(second.uri, None, first)
    alone = Runtime.load(second.uri)
    rows = tiny.rows(2, found.segment_length).numpy()
    none = np.zeros((2, found.state_floats), np.float32)
    np.testing.assert_array_equal(found.fold(none, rows).memory, alone.fold(none, rows).memory)


def test_a_version_whose_shared_code_gives_other_answers_is_compiled_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = added(tmp_path, 1, tiny.CONFIG), added(tmp_path, 2, tiny.CONFIG)
    serves, alone = Runtime.load(first.uri), Runtime.load(second.uri)
    real = Archive.write_into

    def forgets_one(archive: Archive, module: object) -> None:
        real(archive, module)
        module.setattr("directions", -module.getattr("directions"))  # type: ignore[attr-defined]

    monkeypatch.setattr(Archive, "write_into", forgets_one)
    with caplog.at_level(logging.WARNING):
        found = Runtime.load(second.uri, None, serves)
    assert "its code is compiled anew" in caplog.text
    assert not shares_code(found, serves)
    for mine, other in zip(answers(found), answers(alone), strict=True):
        np.testing.assert_array_equal(mine, other)


def test_a_torch_that_cannot_share_code_loads_as_usual(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = added(tmp_path, 1, tiny.CONFIG), added(tmp_path, 2, tiny.CONFIG)
    serves = Runtime.load(first.uri)

    def gone(_: object) -> object:
        raise AttributeError("_replicate_for_data_parallel")

    monkeypatch.setattr(torchscript, "_another_instance", gone)
    with caplog.at_level(logging.WARNING):
        assert not shares_code(Runtime.load(second.uri, None, serves), serves)
    assert "code that is compiled cannot be shared" in caplog.text


class _Foreign(torch.nn.Module):
    """Has an attribute that no program of ours has."""

    def __init__(self) -> None:
        super().__init__()
        self.table = {"a": 1}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.table["a"]


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04", b"not a zip file" * 100])
def test_what_is_no_archive_has_no_form(data: bytes) -> None:
    assert Archive.read(data) is None


def test_an_archive_with_something_unknown_in_it_has_no_form() -> None:
    assert Archive.read(torchscript.saved(torch.jit.script(_Foreign()), {})) is None


def test_the_form_does_not_depend_on_what_else_the_writer_had_compiled(tmp_path: Path) -> None:
    """Nor on the order in which it writes constants, which is another one in each process."""
    forms = set()
    for seed in (1, 2):
        archive = Archive.read((Path(added(tmp_path, seed, tiny.CONFIG).uri) / PROGRAM).read_bytes())
        assert archive is not None
        forms.add(archive.form)
        torchscript.script(tiny.serving(3, tiny.changed(tiny.CONFIG, n_items=30 + seed)))
    assert len(forms) == 1


def test_a_version_that_encodes_prefixes_shares_no_code_with_one_that_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Earlier(MemoryServing):
        """As an earlier build wrote it: torch exports these methods of no other class."""

        def longest_prefix(self, memory: torch.Tensor) -> torch.Tensor:
            raise NotImplementedError

        def encode_prefixes(self, memory: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
            raise NotImplementedError

    without = []
    with monkeypatch.context() as earlier:
        earlier.setattr(torchscript, "PREFIXES", ("not_there_yet",))
        for seed in (1, 2):
            network = tiny.network(seed)
            assert isinstance(network, MemoryNetwork)
            made = Earlier(network, tiny.popularity())
            without.append(Registry(tmp_path).add(made, tiny.manifest(made), tiny.IDS))
    has = added(tmp_path, 3, tiny.CONFIG)
    old, new = Runtime.load(without[0].uri), Runtime.load(has.uri)
    none = np.zeros((2, old.state_floats), np.float32)
    assert old.longest_prefix(none).tolist() == [0, 0]
    assert new.longest_prefix(none).tolist() == [tiny.L, tiny.L]
    assert shares_code(Runtime.load(without[1].uri, None, old), old)
    assert not shares_code(Runtime.load(has.uri, None, old), old)
    assert not shares_code(Runtime.load(without[1].uri, None, new), new)
