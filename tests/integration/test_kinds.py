"""`rec2pm worker` serves every kind of model: a log through a real worker, and everything recomputed from the log and
the artifact alone.
"""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from model.networks.config import KINDS
from model.version.registry import Registry
from stream.commands.broker import Broker
from tests.model import tiny
from tests.verify import recomputed
from tests.verify.live import Options, live


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """30 users of very different activity, some items that no model knows."""
    rng = np.random.default_rng(0)
    user = np.sort(rng.geometric(0.08, 1_500) % 30)
    rng.shuffle(user)
    frame = pl.DataFrame(
        {
            "user_id": [f"user-{number}" for number in user],
            "item_id": [f"item-{number}" for number in rng.integers(1, 66, len(user))],
            "timestamp": 1_700_000_000_000 + 1_000 * np.arange(len(user)),
        }
    )
    path = tmp_path_factory.mktemp("log") / "log.parquet"
    frame.write_parquet(path)
    return path


@pytest.mark.parametrize(
    ("kind", "backbone"),
    [*((kind, "hstu" if kind.startswith("kv-mask") else "sasrec") for kind in KINDS), ("full", "pos_time")],
)
def test_a_worker_serves_it_and_leaves_what_the_log_says(
    kind: str, backbone: str, log: Path, broker: Broker, tmp_path: Path
) -> None:
    config = tiny.config(kind, backbone)
    version = tiny.add(tmp_path / "models", config=config)
    lived = live(log, broker, tmp_path, tmp_path / "models", Options(workers=1, partitions=2, cadence="fold"))
    checks = [*lived.checks, *recomputed.check(lived)]
    assert [str(check) for check in checks if not check.holds] == []
    manifest = Registry(tmp_path / "models").resolve(version.reference).manifest()
    assert (
        f"memory_format={manifest.memory_format} segment_length={config.shape.segment_length} "
        f"state_bytes={4 * manifest.state_floats}"
    ) in (tmp_path / "w0.log").read_text()
