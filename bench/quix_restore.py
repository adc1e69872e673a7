"""A Quix Streams application that recovers its state from its changelog: bench.restore compares with it.

It runs with its own interpreter and imports nothing of this repository. `python bench/quix_restore.py BOOTSTRAP GROUP
INPUT STATE` runs it until SIGTERM. `… --count STATE` prints as JSON how many keys the stores of a state folder have,
and the versions of its libraries.
"""

import json
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from quixstreams import Application, State
from rocksdict import AccessType, Options, Rdict


def note(value: Any, state: State) -> Any:
    """Never called, as the input has no new records. It makes the application stateful."""
    state.set("s", value)
    return value


def run(bootstrap: str, group: str, source: str, folder: str) -> None:
    app = Application(
        broker_address=bootstrap,
        consumer_group=group,
        auto_offset_reset="earliest",
        state_dir=folder,
        processing_guarantee="exactly-once",
        use_changelog_topics=True,
    )
    frame = app.dataframe(app.topic(source, key_deserializer="bytes"))
    frame.apply(note, stateful=True)
    app.run()


def count(folder: Path) -> int:
    keys = 0
    for store in {path.parent for path in folder.rglob("CURRENT")}:
        families = Rdict.list_cf(str(store), Options(raw_mode=True))
        options = {name: Options(raw_mode=True) for name in families}
        opened = Rdict(str(store), Options(raw_mode=True), column_families=options, access_type=AccessType.read_only())
        keys += len(list(opened.keys()))
        opened.close()
    return keys


def main() -> None:
    if sys.argv[1] == "--count":
        versions = {name: metadata.version(name) for name in ("quixstreams", "confluent-kafka", "rocksdict")}
        print(json.dumps({"keys": count(Path(sys.argv[2])), "versions": versions}))
    else:
        run(*sys.argv[1:5])


if __name__ == "__main__":
    main()
