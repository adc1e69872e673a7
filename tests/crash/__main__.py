"""Workers under every kind of fault, and whether what they published is exactly what the input says: `make crash
SECONDS=60 SEED=0`.

Needs KAFKA_HOME (an unpacked Kafka 4) and Java 17. The exit code is 1 when something is lost, doubled or differing, or
when a worker did not recover by itself.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

from tests.crash.broken import BREAKS, VARIABLE
from tests.crash.broken import FAULTS as BROKEN_UNDER
from tests.crash.driver import Options, run
from tests.crash.faults import FAULTS, LONG
from tests.crash.report import report

_LONG_RUN_S = 1200.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60, help="how long faults are injected")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=3, help="at least 2: no fault is aimed at the first")
    parser.add_argument("--partitions", type=int, default=6)
    parser.add_argument("--rate", type=float, default=700, help="records a second")
    parser.add_argument("--log", type=Path, help="Parquet, CSV or JSON lines; default: a synthetic log")
    parser.add_argument(
        "--fault", action="append", default=[], metavar="TEXT", help="only faults whose name contains this; any number"
    )
    parser.add_argument("--failures", type=int, default=3, help="a run ends early after so many")
    parser.add_argument("--folder", type=Path, help="for logs and data; default: a new one")
    parser.add_argument(
        "--break", dest="mistake", choices=sorted(BREAKS), help="workers with a mistake, under the faults that show it"
    )
    parser.add_argument("--list", action="store_true", help="the names of all faults")
    asked = parser.parse_args()
    faults = [*FAULTS, *(LONG if asked.seconds >= _LONG_RUN_S else ())]
    if asked.list:
        print("\n".join(fault.name for fault in (*FAULTS, *LONG)))
        return
    if asked.mistake:
        os.environ[VARIABLE] = asked.mistake  # the workers inherit it
        asked.fault = asked.fault or list(BROKEN_UNDER[asked.mistake])
    if asked.fault:
        faults = [fault for fault in (*FAULTS, *LONG) if any(text in fault.name for text in asked.fault)]
    if asked.workers < 2 or not faults:
        parser.error("at least 2 workers, and a --fault that there is (--list)")
    if not os.environ.get("KAFKA_HOME"):
        parser.error(
            "KAFKA_HOME is not set: expected an unpacked Kafka 4 (the embedded broker has no transactions worth breaking)"
        )
    folder = (asked.folder or Path(tempfile.mkdtemp(prefix="rec2pm-crash-"))).resolve()
    print(f"seed {asked.seed}; logs are in {folder}", flush=True)
    outcome = run(
        Options(
            seconds=asked.seconds,
            seed=asked.seed,
            faults=faults,
            folder=folder,
            workers=asked.workers,
            partitions=asked.partitions,
            rate=asked.rate,
            log=asked.log,
            most_failures=asked.failures,
        ),
        report=lambda line: print(line, flush=True),
    )
    text = report(outcome)
    (folder / "report.md").write_text(text + "\n")
    print(f"\n{text}\n\nlogs are in {folder}")
    sys.exit(0 if outcome.holds else 1)


if __name__ == "__main__":
    main()
