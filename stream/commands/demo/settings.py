"""How large the demo is, and the settings of its workers."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from stream.commands.broker import Broker

APP: Final = "demo"
WORKERS: Final = 2
PARTITIONS: Final = 4
SEGMENT_LENGTH: Final = 20
KEPT_SEGMENTS: Final = 5
TOP_K: Final = 10
TRAINED_SHARE: Final = 0.7
"""The log's first part is trained on and is every user's history; the rest is the traffic that is served."""
TRAINING_S: Final = 55.0
FIRST_SHARE: Final = 0.95
"""Of the past: what the first version is trained on. The second one is trained on all of it, from the first one's
weights, as on a new day.
"""
NEXT_TRAINING_S: Final = 10.0
PROMOTED_AFTER_S: Final = 5.0
"""When in the traffic the second version is promoted."""
TRAFFIC_S: Final = 60.0


def worker_environ(broker: Broker, folder: Path, environ: Mapping[str, str]) -> dict[str, str]:
    kept = {
        name: value
        for name, value in environ.items()
        if not name.startswith("REC2PM_") or name.startswith("REC2PM_KAFKA_")
    }
    ours = {
        "BOOTSTRAP_SERVERS": broker.bootstrap,
        "APP": APP,
        "INTERACTIONS_TOPIC": f"{APP}.interactions",
        "RECOMMENDATIONS_TOPIC": f"{APP}.recommendations",
        "STATE_DIR": str(folder / f"state-{os.getpid()}"),
        "MODELS": str(folder / "models"),
        "KEEP_SEGMENTS": str(KEPT_SEGMENTS),
        "TOP_K": str(TOP_K),
    }
    return kept | {f"REC2PM_{name}": value for name, value in ours.items()}
