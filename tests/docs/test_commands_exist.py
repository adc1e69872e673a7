"""Every command in every page names commands, options, settings and files that exist."""

import re

import pytest

from stream.settings import Settings, variable_of
from tests.docs import known_commands, pages
from tests.docs.known_commands import Unknown

PAGES = pages.names()
COMMAND = re.compile(r"^\s*(\$ |rec2pm |make |pip |python -m |docker |[A-Z0-9_]+=\S+ +(rec2pm|make) )", re.MULTILINE)


@pytest.mark.parametrize("name", PAGES)
def test_commands_in_blocks_parse(name: str) -> None:
    wrong = []
    for block in pages.page(name).blocks:
        for command in block.commands():
            try:
                known_commands.check(command.text)
            except Unknown as error:
                wrong.append(f"{name}:{command.line}: {command.text}: {error}")

    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("name", PAGES)
def test_commands_in_running_text_exist(name: str) -> None:
    wrong = []
    for span in pages.page(name).spans():
        if re.match(r"(rec2pm|make|python -m|pip) [a-z-]", span):
            try:
                known_commands.check_span(span)
            except (Unknown, ModuleNotFoundError) as error:
                wrong.append(f"{name}: `{span}`: {error}")

    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("name", PAGES)
def test_settings_exist(name: str) -> None:
    known = {variable_of(field) for field in Settings.model_fields} | {"REC2PM_TEST_BOOTSTRAP"}
    text = (pages.ROOT / name).read_text()
    named = set(re.findall(r"\bREC2PM_[A-Z0-9_]*[A-Z0-9]\b", text))

    unknown = {each for each in named - known if not each.startswith("REC2PM_KAFKA")}
    assert {each for each in unknown if f"{each} is not a setting" not in text} == set()


@pytest.mark.parametrize("name", PAGES)
def test_commands_stand_in_blocks_that_are_checked(name: str) -> None:
    """A command in a block of another language would be checked by nobody."""
    for block in pages.page(name).blocks:
        if block.language not in pages.SHELLS:
            found = COMMAND.search("\n".join(block.lines))
            assert not found, f"{name}:{block.line}: `{block.language}` block with a command: make it `console` or `sh`"


@pytest.mark.parametrize(
    "command",
    [
        "rec2pm wroker",
        "rec2pm topics create --partition 4",
        "rec2pm topics create --partitions many",
        "rec2pm train clicks.csv",
        "rec2pm train clicks.csv --out models --set learning_rate=1",
        "rec2pm train clicks.csv --out models --recipe sasrec",
        "export A=1 && REC2PM_MODELS=models rec2pm worker --name a 2> worker.log &",
        "until rec2pm topics check --json; do sleep 1; done",
        "make benchmark",
        "make verify LOGS=clicks.csv",
        "make crash ARGS='--lag 3'",
        "python -m bench.fold --kind rec2pm-o",
        "pip install 'rec2pm[train]'",
        "pip install '.[gpu]'",
        "pip install 'rec2pm-0.1.0-py3-none-any.whl[gpu]'",
    ],
)
def test_what_does_not_exist_is_found(command: str) -> None:
    with pytest.raises(Unknown):
        known_commands.check(command)


@pytest.mark.parametrize("span", ["rec2pm user delete", "rec2pm worker --slot", "make site", "pip install rec2pm"])
def test_what_does_not_exist_is_found_in_running_text(span: str) -> None:
    with pytest.raises(Unknown):
        known_commands.check_span(span)


def test_a_block_has_its_commands_their_output_and_its_marks() -> None:
    text = "\n".join(
        [
            "Say `rec2pm user",
            "show`, or:",
            "",
            "<!-- output varies: it has",
            "a time -->",
            "```console",
            "$ one \\",
            "> two",
            "out",
            "",
            "$ three \\",
            "  and",
            "```",
            "```sh",
            "four \\",
            "  five",
            "# a comment",
            "six",
            "```",
        ]
    )

    page = pages.parsed("a.md", text)

    assert page.spans() == ["rec2pm user show"]
    assert [(each.text, each.output) for each in page.blocks[0].commands()] == [
        ("one \\\ntwo", ("out", "")),
        ("three \\\n  and", ()),
    ]
    assert page.blocks[0].marks == {"output varies": "it has\na time"}
    assert [each.text for each in page.blocks[1].commands()] == ["four \\\n  five", "six"]
    assert page.blocks[1].marks == {}
