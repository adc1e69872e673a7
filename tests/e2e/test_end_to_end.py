"""All programs with their defaults, as they are handed over."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

from stream.commands.broker import Broker
from tests.conftest import SHOWS_ABORTED
from tests.e2e.environment import Environment
from tests.e2e.journey import Journey
from tests.e2e.programs import FromWheel, from_image

EXTRAS: Final = ("train", "evaluate", "view")
"""Of the commands of the same names. README says which there are."""


@pytest.fixture
def from_wheel(
    settings: dict[str, str], with_extra: Callable[[str], Environment], tmp_path: Path
) -> Iterator[FromWheel]:
    programs = FromWheel(tmp_path, settings, {extra: with_extra(extra) for extra in ("", *EXTRAS)})
    try:
        yield programs
    finally:
        programs.close()


@pytest.mark.isolation
@pytest.mark.timeout(900)  # a minute is usual; ten programs start here, and other tests may share the machine
def test_the_wheel_with_the_extras_that_readme_names_goes_from_a_log_to_lists(
    from_wheel: FromWheel, settings: dict[str, str]
) -> None:
    Journey(from_wheel, settings).made("var/models", EXTRAS)


@pytest.mark.timeout(900)
def test_the_image_goes_from_a_log_to_lists(
    request: pytest.FixtureRequest, settings: dict[str, str], broker: Broker
) -> None:
    image = request.config.getoption("--image")
    if image is None:
        pytest.skip("no image is given: docker build -f deploy/Dockerfile -t rec2pm . and pytest --image rec2pm")
    if not broker.hides_aborted:
        pytest.skip(SHOWS_ABORTED)
    with from_image(image, settings) as programs:
        Journey(programs, settings).made("models", ("train", "view"))
