"""Versions that one torch wrote, in another: `python -m tests.model.other_torch write FOLDER`, then `… read FOLDER`.

`write` makes a version of every kind of model, with the torch that is installed. `read` loads those of a folder with
the torch that is installed, asks for their golden lists, and prints how far the answers are apart. It loads each a
second time, which must share the compiled code of the first. It needs what a worker does, and safetensors.
CONTRIBUTING.md says when to run it.
"""

import argparse
import sys
from pathlib import Path

import torch

from model.errors import ArtifactUnreadable, ModelError
from model.networks.config import NetworkConfig
from model.version import artifact, golden
from model.version.manifest import GOLDEN
from model.version.registry import Registry
from tests.model import tiny

LARGE = [
    {"kind": "rec2pm-o", "backbone": "sasrec", "layers": 4},
    {"kind": "rec2pm-o", "backbone": "hstu", "layers": 16},
]
"""Those of docs/benchmarks.md: d=64, segments of 200 items."""


def write(folder: Path) -> None:
    for case in tiny.CASES:
        _add(folder, f"{'-'.join(case)}", tiny.config(*case))
    for fields in LARGE:
        config = NetworkConfig.of_table({"n_items": 3416, "segment_length": 200, **fields})
        _add(folder, f"{config.kind}-{fields['backbone']}-{fields['layers']}-layers", config)


def _add(folder: Path, name: str, config: NetworkConfig) -> None:
    serving = tiny.serving(config=config)
    ids = list(range(1, config.shape.n_items + 1))
    print(
        f"{Registry(folder).add(serving, tiny.manifest(serving, name, config.kind), ids).reference} torch {torch.__version__}"
    )


def read(folder: Path) -> bool:
    """Whether every version gives its golden lists."""
    good = True
    registry = Registry(folder)
    for name in registry.names():
        for version in registry.versions(name):
            written_by = version.manifest().program.torch_version
            try:
                loaded = artifact.load(version.uri)
                apart = golden.check(loaded.program, version.read(GOLDEN))
                again = artifact.load(version.uri, None, loaded)
                if again.program._c._type() != loaded.program._c._type():
                    raise ArtifactUnreadable(f"torch {torch.__version__} cannot share its compiled code")
            except ModelError as error:
                good, result = False, f"{type(error).__name__}: {error}"
            else:
                result = f"the same lists, at most {apart:.1e} apart"
            print(f"{version.reference} written by torch {written_by}, read by {torch.__version__}: {result}")
    return good


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["write", "read"])
    parser.add_argument("folder", type=Path)
    asked = parser.parse_args()
    if asked.action == "write":
        write(asked.folder)
    else:
        sys.exit(not read(asked.folder))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
