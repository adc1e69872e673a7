"""A promoted version on its way into a worker, with real artifacts and a real child process."""

from pathlib import Path

import pytest

from model.errors import DigestMismatch, ModelError, VersionUnavailable
from model.version.cache import Cache
from model.version.registry import ModelVersion, Registry
from stream.fault_points import Point
from stream.promotion.loading import Loader, Superseded, VersionUnfit
from stream.promotion.record import Promotion
from tests.model import tiny
from tests.stream.promotion.promotions import promotion


def promoted(version: ModelVersion, **different: object) -> Promotion:
    manifest = version.manifest()
    own = {
        "uri": version.uri,
        "sha256": version.digest(),
        "memory_format": manifest.memory_format,
        "segment_length": manifest.segment_length,
    }
    return promotion(version.reference, **(own | different))


class Scene:
    def __init__(self, folder: Path, registry: str = "models") -> None:
        self.passed: list[Point] = []
        self.loader = Loader(
            registry=Registry(str(folder / registry)), cache=Cache(folder / "cache"), at=self.passed.append
        )


def test_a_version_is_tried_once_and_then_loaded_with_the_id_of_its_promotion(tmp_path: Path) -> None:
    version = tiny.add(tmp_path / "models")
    scene, promotion = Scene(tmp_path), promoted(version)
    served = scene.loader.load(promotion, None)
    assert (served.reference, served.sha256, served.promotion) == ("tiny@1", version.digest(), promotion.id)
    assert served.recommender.promotion == promotion.id
    assert scene.passed == [Point.MODEL_FETCHED, Point.MODEL_TRIED, Point.MODEL_LOADED]
    (mark,) = (tmp_path / "cache").glob("**/.passed-*")
    again = Scene(tmp_path)
    again.loader._trial_s = 0.0  # a second trial could not pass
    assert again.loader.load(promotion, tiny.L).reference == "tiny@1"
    mark.unlink()
    with pytest.raises(VersionUnfit, match="tiny@1 failed its trial"):
        again.loader.load(promotion, tiny.L)


def test_the_own_registry_comes_first_and_the_place_in_the_record_where_that_has_no_such_version(
    tmp_path: Path,
) -> None:
    version = tiny.add(tmp_path / "models")
    assert Scene(tmp_path).loader.load(promoted(version, uri="/nowhere/at/all"), None).reference == "tiny@1"
    elsewhere = Scene(tmp_path, registry="other")
    assert elsewhere.loader.load(promoted(version), None).reference == "tiny@1"


def test_another_version_of_that_name_and_number_in_the_own_registry_is_not_taken_for_it(tmp_path: Path) -> None:
    version = tiny.add(tmp_path / "models", seed=3)
    tiny.add(tmp_path / "own")
    served = Scene(tmp_path, registry="own").loader.load(promoted(version), None)
    assert served.sha256 == version.digest()


def test_a_copy_that_is_there_is_loaded_without_asking_the_registry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    promotion = promoted(tiny.add(tmp_path / "models"))
    Scene(tmp_path).loader.load(promotion, None)

    def asked(*_: object) -> ModelVersion:
        raise AssertionError("a registry that is away would be waited for")

    monkeypatch.setattr(Registry, "resolve", asked)
    assert Scene(tmp_path).loader.load(promotion, None).reference == "tiny@1"


def test_another_file_of_the_same_name_is_never_loaded(tmp_path: Path) -> None:
    version, other = tiny.add(tmp_path / "models"), tiny.add(tmp_path / "others", seed=5)
    scene = Scene(tmp_path, registry="others")
    with pytest.raises(DigestMismatch):
        scene.loader.load(promoted(version, uri=other.uri), None)
    assert Point.MODEL_FETCHED not in scene.passed


def test_a_version_that_is_nowhere_is_unavailable_and_may_come(tmp_path: Path) -> None:
    version = tiny.add(tmp_path / "models")
    promotion = promoted(version, uri=str(tmp_path / "gone" / "tiny" / "1"))
    scene = Scene(tmp_path, registry="gone")
    with pytest.raises(VersionUnavailable):
        scene.loader.load(promotion, None)
    (tmp_path / "models").rename(tmp_path / "gone")
    assert scene.loader.load(promotion, None).reference == "tiny@1"


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"memory_format": "other/1"}, "of memory format other/1"),
        ({"segment_length": 7}, "segment length 7"),
    ],
)
def test_a_record_that_says_something_else_than_the_version_is_refused(
    tmp_path: Path, changed: dict[str, object], words: str
) -> None:
    version = tiny.add(tmp_path / "models")
    with pytest.raises(VersionUnfit, match=words):
        Scene(tmp_path).loader.load(promoted(version, **changed), None)


def test_a_version_of_another_segment_length_is_refused_before_it_is_fetched(tmp_path: Path) -> None:
    version = tiny.add(tmp_path / "models")
    scene = Scene(tmp_path)
    with pytest.raises(VersionUnfit, match=f"folds every {tiny.L} interactions, .* folding every 50"):
        scene.loader.load(promoted(version), 50)
    assert scene.passed == []


def test_a_newer_promotion_ends_the_work_before_the_trial(tmp_path: Path) -> None:
    version = tiny.add(tmp_path / "models")
    scene = Scene(tmp_path)
    with pytest.raises(Superseded):
        scene.loader.load(promoted(version), None, lambda: True)
    assert scene.passed == [Point.MODEL_FETCHED]


def test_the_local_version_is_the_one_used_last(tmp_path: Path) -> None:
    first, second = tiny.add(tmp_path / "models"), tiny.add(tmp_path / "models", seed=3)
    scene = Scene(tmp_path)
    assert scene.loader.local() is None
    for version in (first, second, first):
        scene.loader.load(promoted(version), None)
    local = scene.loader.local()
    assert local is not None
    assert (local.reference, local.source, local.sha256) == ("tiny@1", "local", first.digest())


def test_a_local_version_that_is_damaged_is_passed_over(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    scene.loader.load(promoted(tiny.add(tmp_path / "models")), None)
    (program,) = (tmp_path / "cache").glob("**/model.pt")
    program.write_bytes(program.read_bytes()[:-10])
    assert scene.loader.local() is None


def test_what_the_settings_name_is_loaded_without_a_promotion(tmp_path: Path) -> None:
    version = tiny.add(tmp_path / "models")
    served = Scene(tmp_path).loader.configured("tiny")
    assert (served.reference, served.source, served.promotion) == ("tiny@1", "configured", "")
    assert served.sha256 == version.digest()
    with pytest.raises(ModelError):
        Scene(tmp_path).loader.configured("other")
