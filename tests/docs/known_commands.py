"""Whether a command line names a command, options and targets that exist: parsed, never run."""

import argparse
import importlib
import re
import shlex
import subprocess
import tomllib
from collections.abc import Iterator, Sequence
from typing import Any, Final
from unittest import mock

import click

from model.training import recipe as recipes
from stream.commands.main import main
from tests.docs.pages import ROOT

_ENDS: Final = {"&&", "||", ";", "|", "&", "\n", "(", ")"}
_ASSIGNED: Final = re.compile(r"[A-Z_][A-Z0-9_]*=.*", re.DOTALL)
_WRAPPERS: Final = frozenset({"nohup", "time", "timeout", "docker", "exec", "until", "while", "if", "do", "then", "!"})
_PLACEHOLDER: Final = re.compile(r"…|\.\.\.|=[A-Z]+$")
_MODULES: Final = ("bench", "tests", "stream")
"""Ours: other modules that `python -m` names are not looked into."""


class Unknown(Exception):
    """A command, option, target, recipe field or extra that does not exist."""


class _Parsed(Exception):
    """The arguments were accepted."""


def check(command: str) -> int:
    """Check each part of a command line; returns how many parts were ours.

    Raises:
        Unknown: the first part that does not exist.
    """
    return sum(_check_one(words) for words in simple_commands(command))


def check_span(span: str) -> None:
    """Check what stands in running text: a command's name and options, or a make target. Arguments may be missing.

    Raises:
        Unknown: what does not exist.
    """
    words = re.split(r"\s+\|\s+|\s*…", span)[0].split()
    if words[0] == "rec2pm":
        command, rest = _resolved(words[1:])
        known = {name for each in command.params for name in (*each.opts, *each.secondary_opts)} | {"-h", "--help"}
        for word in rest:
            if word.startswith("--") and word.partition("=")[0] not in known:
                raise Unknown(f"{command.name} has no option {word}")
    elif words[0] == "make":
        _check_make([word for word in words[1:] if re.fullmatch(r"[a-z]+", word)])
    elif words[:2] == ["python", "-m"] and words[2].split(".")[0] in _MODULES:
        importlib.import_module(words[2])
    elif words[0] == "pip":
        check(span)


def simple_commands(command: str) -> Iterator[list[str]]:
    """The words of each command in a line of shell, without assignments, wrappers and redirections."""
    lexer = shlex.shlex(re.sub(r"\\\n", " ", command), posix=True, punctuation_chars="();|&\n")
    lexer.whitespace = " \t"
    lexer.whitespace_split = True
    words: list[str] = []
    for word in [*lexer, "\n"]:
        if word not in _ENDS and set(word) - set("();|&\n"):
            words.append(word)
            continue
        yield from _stripped(words)
        words = []


def _stripped(words: list[str]) -> Iterator[list[str]]:
    while words and (_ASSIGNED.fullmatch(words[0]) or words[0] in _WRAPPERS):
        words = words[1:]
    kept = []
    skip = False
    for word in words:
        if not skip and word != "…" and not re.match(r"\d?[<>]", word):
            kept.append(word)
        skip = bool(re.fullmatch(r"\d?[<>]+", word))
    if kept:
        yield kept


def _check_one(words: list[str]) -> bool:
    match words:
        case [program, *arguments] if program.rpartition("/")[2] == "rec2pm":
            _check_rec2pm(arguments)
        case ["make", *arguments]:
            _check_make(arguments)
        case [program, "-m", module, *arguments] if "python" in program and module.split(".")[0] in _MODULES:
            _check_module(module, arguments)
        case [program, *arguments] if program.rpartition("/")[2] == "pip":
            _check_pip(arguments)
        case _:
            return False
    return True


def _resolved(words: Sequence[str]) -> tuple[click.Command, list[str]]:
    """The command that the first words name, and the other words."""
    command: click.Command = main
    rest = list(words)
    while isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
        if (found := command.commands.get(rest[0])) is None:
            raise Unknown(f"`{command.name}` has no command {rest[0]!r}, only {', '.join(sorted(command.commands))}")
        command, rest = found, rest[1:]
    return command, rest


def _check_rec2pm(arguments: list[str]) -> None:
    try:
        command, rest = _resolved(arguments)
        context = command.make_context(command.name, rest, parent=click.Context(main))
    except click.exceptions.Exit:  # --help, --list, --version
        return
    except click.ClickException as error:
        raise Unknown(error.format_message()) from error
    if command.name == "train":
        _check_fields(context.params)


def _check_fields(given: dict[str, Any]) -> None:
    """The fields of a recipe, where the recipe is one of ours and the values are real ones."""
    if (given["recipe"] or "").endswith(".toml"):
        return
    settings = [each for each in given["settings"] if not _PLACEHOLDER.search(each)]
    try:
        recipes.changed(recipes.load(given["recipe"] or recipes.DEFAULT), settings)
    except recipes.RecipeInvalid as error:
        raise Unknown(str(error)) from error


def _check_make(arguments: list[str]) -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z]+):.*##", makefile, re.MULTILINE))
    for word in arguments:
        variable, is_set, _ = word.partition("=")
        if is_set and not re.search(rf"\$\((or \$\()?{re.escape(variable)}\)", makefile):
            raise Unknown(f"the Makefile has no variable {variable}")
        if not is_set and not word.startswith("-") and word not in targets:
            raise Unknown(f"the Makefile has no target {word!r}")
    # What the target would run, with the options that the variables give it.
    if any(word.startswith("ARGS=") for word in arguments) and "test" not in arguments:
        told = subprocess.run(["make", "-n", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout
        for line in told.splitlines():
            if re.match(r"@?\.venv/bin/(python -m (bench|tests)|rec2pm)\b", line):
                check(line.lstrip("@"))


def _check_module(name: str, arguments: list[str]) -> None:
    module = importlib.import_module(name)
    if hasattr(module, "__path__"):
        module = importlib.import_module(f"{name}.__main__")
    parse = argparse.ArgumentParser.parse_args

    def parsed(self: argparse.ArgumentParser, *_: Any) -> None:
        parse(self, arguments)
        raise _Parsed

    def refused(_: argparse.ArgumentParser, message: str) -> None:
        raise Unknown(f"{name}: {message}")

    with (
        mock.patch.object(argparse.ArgumentParser, "parse_args", parsed),
        mock.patch.object(argparse.ArgumentParser, "error", refused),
    ):
        try:
            module.main()
        except _Parsed:
            return
        except SystemExit as ended:  # --help
            if ended.code == 0:
                return
    raise Unknown(f"{name} does not parse its arguments first")


def _check_pip(arguments: list[str]) -> None:
    """What is installed is this checkout, with extras that it has: no package of the name is published."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for word in arguments:
        if re.match(r"rec2pm\b", word) and not re.fullmatch(r"rec2pm-[\d.]+-py3-none-any\.whl(\[.*\])?", word):
            raise Unknown(f"{word}: no such package is published; install the checkout, `pip install .`")
        if found := re.fullmatch(r"(?:\.|[\w./~-]*/rec2pm|[\w./~-]*\.whl)\[([\w,-]+)\]", word):
            unknown = set(found[1].split(",")) - set(extras)
            if unknown:
                raise Unknown(f"{word}: there is no extra {', '.join(sorted(unknown))}")
