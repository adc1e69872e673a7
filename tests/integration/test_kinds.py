"""A worker serves every kind of model: a log through it, and everything recomputed from the log and the artifact alone.

Some kinds go through `rec2pm worker` and Kafka, the others through its own loop in this process.
"""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from msgspec import to_builtins
from msgspec.structs import asdict

from model.networks.config import KINDS
from model.version.registry import Registry
from stream.commands.broker import Broker
from stream.kafka.partitioner import partition_of
from stream.replay.shard import LISTS
from stream.state_rows import SCHEMA
from stream.testing import Driver
from tests.model import tiny
from tests.verify import recomputed
from tests.verify.live import KEEP_FORMATS, KEEP_SEGMENTS, TOP_K, Lived, Options, live


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


CASES = [*((kind, "hstu" if kind.startswith("kv-mask") else "sasrec") for kind in KINDS), ("full", "pos_time")]
AS_PROCESSES = [("rec2pm-o", "sasrec"), ("kv-mask-o", "hstu"), ("full", "pos_time")]
"""A memory, a memory of other parts, and none but with times."""
PARTITIONS = 2
STEP = 500


@pytest.mark.parametrize(("kind", "backbone"), AS_PROCESSES)
def test_a_worker_serves_it_and_leaves_what_the_log_says(
    kind: str, backbone: str, log: Path, broker: Broker, tmp_path: Path
) -> None:
    config = tiny.config(kind, backbone)
    version = tiny.add(tmp_path / "models", config=config)
    lived = live(log, broker, tmp_path, tmp_path / "models", Options(workers=1, partitions=PARTITIONS, cadence="fold"))
    checks = [*lived.checks, *recomputed.check(lived)]
    assert [str(check) for check in checks if not check.holds] == []
    manifest = Registry(tmp_path / "models").resolve(version.reference).manifest()
    assert (
        f"memory_format={manifest.memory_format} segment_length={config.shape.segment_length} "
        f"state_bytes={4 * manifest.state_floats}"
    ) in (tmp_path / "w0.log").read_text()


@pytest.mark.parametrize(("kind", "backbone"), [case for case in CASES if case not in AS_PROCESSES])
def test_the_loop_of_a_worker_serves_it_too(kind: str, backbone: str, log: Path, tmp_path: Path) -> None:
    version = tiny.add(tmp_path / "models", config=tiny.config(kind, backbone))
    settings = {"recommend": "fold", "top_k": TOP_K, "keep_segments": KEEP_SEGMENTS, "keep_formats": KEEP_FORMATS}
    frame = pl.read_parquet(log)
    with Driver(tmp_path / "models", partitions=PARTITIONS, **settings) as driver:
        offsets = [
            offset
            for piece in frame.iter_slices(STEP)
            for offset in driver.send_all(piece.select("user_id", "item_id", "timestamp").rows())
        ]
        lists = [{"user_id": user, **asdict(made)} for user, made in driver.lists() if made is not None]
        states = [driver.user(user) for user in frame["user_id"].unique()]
    assert None not in states
    places = [partition_of(user.encode(), PARTITIONS) for user in frame["user_id"]]
    lived = Lived(
        env={},
        topic="",
        options=Options(workers=1, partitions=PARTITIONS, cadence="fold"),
        versions=[version],
        log=frame.with_columns(
            partition=pl.Series(places, dtype=pl.Int32),
            offset=pl.Series(offsets, dtype=pl.Int64),
            version=pl.lit(version.reference),
        ),
        lists=pl.DataFrame(lists, schema=LISTS),
        state=pl.DataFrame(to_builtins(states), schema=SCHEMA),
        checks=[],
    )
    assert [str(check) for check in recomputed.check(lived) if not check.holds] == []
