"""What live workers did beside `rec2pm replay --from-kafka TOPIC --as-served`, which follows the same marks."""

import time
from pathlib import Path
from typing import Final

import polars as pl

from tests import as_served
from tests.processes import rec2pm
from tests.verify.check import Check, none_of
from tests.verify.live import Lived, must

_REPLAYED_WITHIN_S: Final = 4 * 3600.0


def check(lived: Lived, out: Path) -> list[Check]:
    """Replay the topic as it was served, and compare every list and every state.

    Args:
        out: a folder for what the replay writes.
    """
    began = time.monotonic()
    must(
        rec2pm(
            "replay",
            *("--from-kafka", lived.topic),
            "--as-served",
            *("--out", str(out)),
            env=lived.env,
            timeout=_REPLAYED_WITHIN_S,
        )
    )
    print(f"replayed, with its report, in {time.monotonic() - began:.1f} s", flush=True)
    lists, state = (pl.read_parquet(out / "served" / f"{name}.parquet") for name in ("recommendations", "state"))
    every = lived.options.cadence != "interaction"
    return [
        none_of(
            "every list is the one of `replay --as-served`",
            len(lived.lists),
            [*as_served.list_differences(lived.lists, lists, every=every)],
        ),
        none_of(
            "every state is the one of `replay --as-served`",
            len(lived.state),
            [*as_served.state_differences(lived.state, state)],
        ),
    ]
