"""Is what the workers leave behind what the log says? `make verify LOG=path.parquet WORKERS=2 KILLS=10`.

Sends a log through real workers on a real broker, kills some of them at random moments if asked to, and promotes
versions while interactions come. Then it recomputes every user's state and the list after each fold from the log and
the artifacts alone. At last it replays the topic with `rec2pm replay --as-served` and compares every list and every
state, and explains some lists. The exit code is 1 if something differs, and the first difference is named.
"""

import argparse
import logging
import os
import sys
import tempfile
import time
from pathlib import Path

from model.synthetic import SyntheticLog, generate
from stream.commands.broker import found_broker
from tests.processes import environ, rec2pm
from tests.verify import explained, recomputed, replayed
from tests.verify.live import Options, live, must

_TRAINED_S = 15


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--log", help="Parquet, CSV or JSON lines; default: a synthetic log")
    parser.add_argument(
        "--models",
        type=Path,
        help="a registry with versions of one model; the first serves at the start, the others are promoted, and at last "
        f"the first again (default: two are trained for {_TRAINED_S} s each)",
    )
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--kills", type=int, default=0, help="how often a worker is killed (SIGKILL) and started again")
    parser.add_argument("--partitions", type=int, default=4)
    parser.add_argument("--recommend", default="1", help="REC2PM_RECOMMEND of the workers: interaction, fold, or N")
    parser.add_argument("--explain", type=int, default=20, help="how many lists, chosen at random, are explained")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    options = Options(
        workers=asked.workers, kills=asked.kills, partitions=asked.partitions, cadence=asked.recommend, seed=asked.seed
    )
    with (
        tempfile.TemporaryDirectory(prefix="rec2pm-verify-") as scratch,
        found_broker(os.environ, Path(scratch)) as broker,
    ):
        folder = Path(scratch)
        log = asked.log
        if log is None:
            log = folder / "synthetic.parquet"
            # Few users of whom many outlive their kept segments.
            generate(SyntheticLog(users=250, interactions_median=150)).interactions.write_parquet(log)
        print(f"broker: {broker.description}; seed {asked.seed}", flush=True)
        models = asked.models or _trained(log, folder / "models")
        lived = live(log, broker, folder, models, options)
        print("recomputing every user from the log and the artifacts", flush=True)
        checks = [*lived.checks, *recomputed.check(lived)]
        print("replaying the topic as it was served", flush=True)
        checks += replayed.check(lived, folder / "replay")
        checks.append(explained.check(lived, asked.explain))
    for each in checks:
        print(each)
    sys.exit(0 if all(each.holds for each in checks) else 1)


def _trained(log: Path | str, models: Path) -> Path:
    """A registry with two versions that cannot read each other's memories. They are trained briefly: what they
    recommend is not the question here.
    """
    began = time.monotonic()
    for seed in (0, 1):
        sets = ("--set", f"max_seconds={_TRAINED_S}", "--set", f"seed={seed}")
        must(rec2pm("train", str(log), "--out", str(models), *sets, env=environ("", "train")))
    print(f"trained two versions in {time.monotonic() - began:.0f} s", flush=True)
    return models


if __name__ == "__main__":
    main()
