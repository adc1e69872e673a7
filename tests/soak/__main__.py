"""Swaps of the model under a steady load: `make soak SWAPS=200`, or `python -m tests.soak --swaps 200 --beat 4`.

Two workers serve a log on a real broker while versions are promoted on a steady beat: first two of one memory format in
turn, then two of different ones. Afterwards every list and every state is recomputed with the version that served then.
The exit code is 1 if something is lost, doubled or differing, if swaps make steps slow, or if memory grows.
"""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

import torch

from stream.commands.broker import found_broker
from tests.promoting import promote
from tests.soak import figures, report, traffic, versions
from tests.soak.run import Options, run

_TRYING_S = 60.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--log", type=Path, help="Parquet, CSV or JSON lines; default: a synthetic log")
    parser.add_argument("--swaps", type=int, default=200, help="promotions, half of them within one memory format")
    parser.add_argument("--beat", type=float, default=4.0, help="seconds from one promotion to the next")
    parser.add_argument("--quiet", type=float, default=30.0, help="seconds without promotions, before and after")
    parser.add_argument("--rate", type=float, default=300.0, help="interactions a second")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--train", type=float, default=60.0, help="seconds of training for each of two models")
    parser.add_argument("--models", type=Path, help="a registry that an earlier run made; default: a new one is made")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="a folder for soak.json and the plot; default: a new one")
    asked = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="rec2pm-soak-"))
    out = asked.out or folder
    out.mkdir(parents=True, exist_ok=True)

    def said(line: str) -> None:
        print(line, flush=True)

    torch.set_num_threads(1)  # the oracle asks for one user at a time
    log = traffic.log_of(asked.log, asked.seed)
    of_models = asked.models or folder / "models"
    if not of_models.exists():
        said("training two models")
        versions.make(log, of_models, asked.train)
    first, same, other = versions.found(of_models)
    phases = versions.phases(first, same, other, asked.swaps)
    seconds = 4 * asked.quiet + (1.5 * asked.swaps + 2) * asked.beat + _TRYING_S
    sent = traffic.records(traffic.mixed(log, round(seconds * asked.rate), asked.seed))
    with found_broker(os.environ, folder / "broker") as broker:
        said(f"broker: {broker.description}; logs are in {folder}")
        options = Options(asked.rate, asked.beat, asked.quiet, asked.workers)
        outcome = run(options, broker, folder, of_models, first, phases, sent, promote, said)
    swaps = figures.swaps_of(outcome)
    kinds, growth = list(figures.phases(outcome, swaps)), list(figures.growth(outcome))
    (out / "soak.json").write_text(json.dumps(figures.as_json(outcome, swaps), indent=1))
    report.plot(out / "soak.svg", outcome, swaps, kinds)
    text = "\n".join(report.tables(outcome, kinds, growth))
    (out / "soak.md").write_text(text + "\n")
    said(f"\n{text}\n")
    claims = list(report.claims(outcome, kinds, growth))
    for holds, claim in claims:
        said(f"{'PASS' if holds else 'FAIL'}  {claim}")
    said(f"\nfigures and plot are in {out}, logs in {folder}")
    sys.exit(0 if all(holds for holds, _ in claims) else 1)


if __name__ == "__main__":
    main()
