"""Follow the pages, and print what each command prints.

The Kafka is that of KAFKA_HOME, else the embedded broker.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from stream.commands.broker import found_broker
from tests.crash.ports import free_port
from tests.docs import session
from tests.docs.pages import ROOT, Command
from tests.docs.session import Ran
from tests.docs.test_pages_are_followed import FOLLOWED, own_broker


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.docs", description=__doc__)
    parser.add_argument("pages", nargs="*", metavar="PAGE", default=list(FOLLOWED))
    parser.add_argument("--long", action="store_true", help="train as long as the pages say, not as the tests do")
    parser.add_argument("--write", action="store_true", help="replace the outputs that the pages show")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder, metrics_port = Path(name) / "shop", free_port()
        folder.mkdir()
        with found_broker(own_broker(os.environ), Path(name), docker=False) as broker:
            change = session.changed(broker.bootstrap, free_port(), metrics_port, short=not asked.long)
            for page in asked.pages:
                print(f"\n=== {page}")
                done: list[tuple[Command, Ran]] = []
                wrong = session.followed(page, folder, session.environ(metrics_port), change, _printing(done))
                if asked.write:
                    _write(ROOT / page, done, change)
                elif wrong:
                    sys.exit("\n".join(wrong))


def _printing(done: list[tuple[Command, Ran]]) -> session.Told:
    def told(command: Command, ran: Ran) -> None:
        done.append((command, ran))
        print("$ " + ran.text.replace("\n", "\n> "))
        print(ran.printed.rstrip("\n"), flush=True)
        if ran.code:
            print(f"(exit code {ran.code})")

    return told


def _write(page: Path, done: Sequence[tuple[Command, Ran]], change: Mapping[str, str]) -> None:
    """Replace the output that the page shows, from its last command to its first."""
    lines = page.read_text().splitlines()
    for command, ran in reversed(done):
        if not command.output:
            continue  # its page leaves the output out
        printed = ran.printed
        for written, instead in reversed(change.items()):
            printed = printed.replace(instead, written)
        first = command.line - 1 + len(command.text.splitlines())
        shown = [line for line in printed.rstrip("\n").splitlines() if not session.is_bar(line)]
        lines[first : first + len(command.output)] = shown
    page.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
