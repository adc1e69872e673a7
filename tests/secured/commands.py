"""Every command that talks to Kafka: how it is typed, in front of a secured Kafka that has something for it."""

from collections.abc import Mapping
from typing import Final

from stream.kafka import rights
from stream.kafka.names import Names, trainer_group, view_group
from stream.kafka.rights import Right

APP: Final = "shop"
NAMES: Final = Names(APP, "clicks", "recommendations")
VIEW: Final = "view"
_REPLAY: Final = ("--jobs", "1", "--top-k", "5", "--out", "{new}/replay")

ARGUMENTS: Final[Mapping[str, tuple[str, ...]]] = {
    "produce": ("produce", "{folder}/log.csv"),
    "produce --resume": ("produce", "{folder}/log.csv", "--resume", "{new}/run"),
    "interactions export": ("interactions", "export", "--out", "{new}/history"),
    "replay --from-kafka": ("replay", "--from-kafka", NAMES.interactions, "--model", "tiny@1", *_REPLAY),
    "replay --as-served": ("replay", "{folder}/history", "--as-served", *_REPLAY),
    "explain": ("explain", "{place}"),
    "user show": ("user", "show", "bob"),
    "state export": ("state", "export", "--out", "{new}/users.parquet"),
    "state import": ("state", "import", "{folder}/users.parquet", "--position", "end"),
    "state import --execute": ("state", "import", "{folder}/users.parquet", "--position", "end", "--execute"),
    "user forget": ("user", "forget", "ann"),
    "user forget --execute": ("user", "forget", "ann", "--execute"),
    "dead-letters list": ("dead-letters", "list"),
    "dead-letters show": ("dead-letters", "show", "{letter}"),
    "dead-letters replay": ("dead-letters", "replay"),
    "dead-letters replay --execute": ("dead-letters", "replay", "--execute"),
    "models list": ("models", "list"),
    "models show": ("models", "show", "champion"),
    "models verify": ("models", "verify", "champion"),
    "models diff": ("models", "diff", "champion", "tiny@2"),
    "models promote --dry-run": ("models", "promote", "tiny@2", "--dry-run"),
    "models promote": ("models", "promote", "tiny@2"),
    "models status": ("models", "status", "--wait", "--timeout", "30"),
    "models rollback": ("models", "rollback"),
    "models history": ("models", "history"),
    "models history --user": ("models", "history", "--user", "bob"),
    "trainer": ("trainer", "--log", "{new}/log"),
    "trainer --promote": ("trainer", "--promote", "--log", "{new}/log"),
    "view": ("view", "--listen", "127.0.0.1:{port}"),
    "view --users": ("view", "--users", "--listen", "127.0.0.1:{port}"),
}
"""In an order in which each finds what it needs. `{new}`: a folder that no command had before."""

FRESH: Final = frozenset({"state import", "state import --execute"})
"""These need an application that nobody has used."""
RUNNING: Final[Mapping[str, str]] = {
    "trainer": trainer_group(APP),
    "trainer --promote": trainer_group(APP),
    "view": view_group(APP, VIEW),
    "view --users": view_group(APP, VIEW),
}
"""These run until they are stopped. The consumer group that they join."""
ELSEWHERE: Final = frozenset(
    {"worker", "topics check", "topics create", "reset --execute", "reset --execute --interactions"}
)
"""Commands that other tables of the page and tests/integration/test_permissions.py try."""


def needed(command: str, on: Names) -> list[Right]:
    """The rights of a command."""
    match command:
        case "view":
            return rights.of_view(on, VIEW)
        case "view --users":
            return rights.of_view_users(on, VIEW)
    return rights.COMMANDS[command](on)
