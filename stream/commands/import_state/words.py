"""What an import says before it writes, and when it has written."""

from collections.abc import Mapping

from stream.commands.import_state.application import Position, Target
from stream.commands.import_state.states import States
from stream.commands.output import counted


def plan_lines(states: States, to: Target, wanted: Position, positions: Mapping[int, int]) -> list[str]:
    """What is in the file, where it goes, and where workers go on."""
    users = sum(states.users.values())
    formats: dict[str, int] = {}
    for each in states.formats.values():
        for name, count in each.items():
            formats[name] = formats.get(name, 0) + count
    folded = ", ".join(f"{counted(count, 'user')} of {name}" for name, count in sorted(formats.items())) or "none yet"
    interactions, length = counted(states.interactions, "interaction"), states.facts.segment_length
    return [
        f"states: {counted(users, 'user')} with {interactions}, folded every {length}; memories: {folded}",
        f"changelog: {to.changelog}, {counted(to.width, 'partition')}, about {states.size / 1e6:.1f} MB",
        f"workers go on {_where(wanted, to)}: {', '.join(f'{to.interactions}[{n}]@{at}' for n, at in positions.items())}",
    ]


def _where(wanted: Position, to: Target) -> str:
    if wanted == "end":
        return f"at the present end of {to.interactions}; what it holds now counts as remembered"
    if wanted == "file":
        return "where the states of the file end"
    return "at the offsets that were named"


PREVIEW_LINE = "nothing was written: add --execute to write"


def done_line(states: States, to: Target) -> str:
    users = counted(sum(states.users.values()), "user")
    return f"imported {users} into application {to.app}: start workers with a model that folds every {states.facts.segment_length}"
