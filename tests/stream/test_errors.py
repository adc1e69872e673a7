"""Every error of the project has a row in the table that says what the worker does about it."""

import importlib
import inspect
import pkgutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

import model
import state
import stream
from model.errors import ModelError, ModelFailed, ModelNotFound, TrainingInterrupted
from state.errors import StateCorrupted, StateError
from stream import errors
from stream.errors import ACTIONS, Action, MalformedInteraction, StepAborted, StopAsked, StreamError, action_on
from tests.fakes import FakeLink, FakeModel, FakeRecord, run_to_end, said, worker_on


def below(root: type[Exception]) -> Iterator[type[Exception]]:
    for error in root.__subclasses__():
        yield error
        yield from below(error)


def all_errors() -> list[type[Exception]]:
    """Those of the three packages' `errors` modules, which is where errors are made."""
    for package in (state, model, stream):
        assert "errors" in {module.name for module in pkgutil.iter_modules(package.__path__)}
        importlib.import_module(f"{package.__name__}.errors")
    found = [error for root in (StreamError, StateError, ModelError) for error in below(root)]
    return [error for error in found if error.__module__.split(".")[0] in ("state", "model", "stream")]


@pytest.mark.parametrize("error", all_errors(), ids=lambda error: error.__name__)
def test_every_error_has_a_row_directly_or_through_its_root(error: type[Exception]) -> None:
    assert any(known in ACTIONS for known in error.__mro__), f"{error.__name__} has no row in stream.errors.ACTIONS"


def test_every_row_is_an_error_of_the_project() -> None:
    assert set(ACTIONS) <= {*all_errors(), StreamError, StateError, ModelError}


def test_the_documented_table_is_the_table() -> None:
    documented = {}
    for line in (inspect.getdoc(errors) or "").splitlines():
        name, *rest = line.split() or [""]
        if rest and rest[0] in Action.__members__:
            documented[name] = Action[rest[0]]
    told = {error.__name__: action for error, action in ACTIONS.items() if action is not Action.STOP}
    assert documented == told


def test_the_errors_that_do_not_stop_the_worker_are_these() -> None:
    going_on = {error: action for error, action in ACTIONS.items() if action is not Action.STOP}
    assert going_on == {
        MalformedInteraction: Action.DEAD_LETTER,
        StepAborted: Action.ABANDON,
        StateCorrupted: Action.RESTORE,
        ModelFailed: Action.DEAD_LETTER,
        StopAsked: Action.LEAVE,
    }


class Refusing(FakeLink):
    """Its first poll raises an error."""

    error: Exception | None = None

    def poll(self, limit: int, wait_s: float) -> Sequence[FakeRecord]:
        if self.error is not None:
            error, self.error = self.error, None
            raise error
        return super().poll(limit, wait_s)


@pytest.mark.parametrize("error", ACTIONS, ids=lambda error: error.__name__)
def test_the_worker_does_what_the_table_says(error: type[Exception], tmp_path: Path) -> None:
    link = Refusing([FakeRecord(b"ann", said(1, 1_000), 0, 0)], [])
    worker = worker_on(link, tmp_path, FakeModel(4))
    link.error = error("said by the test", 15) if error is TrainingInterrupted else error("said by the test")
    if isinstance(link.error, StateError):
        link.error.folder = tmp_path / "0"
    if ACTIONS[error] in (Action.ABANDON, Action.RESTORE):
        run_to_end(worker, link)
        assert len(link.lists()) == 1
        assert worker.partitions.owned() == []
    else:
        with pytest.raises(error):
            worker.turn()
        worker.partitions.close()


def test_an_error_without_a_row_of_its_own_has_that_of_its_root() -> None:
    assert action_on(ModelNotFound("none")) is ACTIONS[ModelError]
    assert action_on(ValueError("a mistake of ours")) is Action.STOP


@pytest.mark.parametrize(
    "error", [*all_errors(), StreamError, StateError, ModelError], ids=lambda error: error.__name__
)
def test_every_error_says_what_happened(error: type[Exception]) -> None:
    assert error.__doc__
