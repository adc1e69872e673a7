"""A worker and the keys of its input: which users they are, and what is said when they are in the wrong place."""

import logging
import struct
from pathlib import Path

import pytest

from stream.key_check import KeyCheck
from stream.keys import Format, KeyFormat
from stream.prometheus import WorkerMetrics
from stream.state_rows import rows
from tests.fakes import FakeLink, FakeModel, FakeRecord, run_to_end, said, worker_on

NINE = 9


@pytest.mark.parametrize(
    ("form", "key", "refused", "reason"),
    [
        ("utf8", b"42", struct.pack(">q", 42), "REC2PM_KEY_FORMAT=long reads that"),
        ("long", struct.pack(">q", 42), b"42", "REC2PM_KEY_FORMAT=utf8 reads"),
        ("int", struct.pack(">i", 42), struct.pack(">q", 42), "REC2PM_KEY_FORMAT=long reads that"),
        ("json", b'"42"', b"42", "REC2PM_KEY_FORMAT=utf8 reads"),
    ],
)
def test_the_same_user_has_the_same_state_in_whatever_form_the_key_comes(
    tmp_path: Path, form: Format, key: bytes, refused: bytes, reason: str
) -> None:
    records = [FakeRecord(key, said(7, 1), 0, 0), FakeRecord(refused, said(7, 1), 0, 1), FakeRecord(key, None, 0, 2)]
    records += [FakeRecord(key, said(8, 2), 0, 3), FakeRecord(key, said(9, 3), 0, 4)]
    link = FakeLink(records, [])
    worker = worker_on(link, tmp_path, FakeModel(NINE), keys=KeyFormat(form))
    run_to_end(worker, link)
    (row,) = rows(iter(sorted(link.state(0).items())), 0)
    assert (row.user_id, row.working_items) == ("42", ["8", "9"])
    (letter,) = [letter for outgoing in link.published for letter in outgoing.dead]
    assert (letter.key, letter.value) == (refused, said(7, 1))
    assert reason in (dict(letter.headers)["__streams.errors.message"] or b"").decode()


def test_a_worker_says_once_that_keys_are_not_in_their_partitions_and_counts_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    records = [FakeRecord(b"%d" % user, said(1, 1), 0, at) for at, user in enumerate([*range(100), *range(100)])]
    link = FakeLink(records, [60, 120], width=4)
    worker = worker_on(link, tmp_path, FakeModel(NINE), key_check=KeyCheck("clicks"))
    with caplog.at_level(logging.WARNING):
        run_to_end(worker, link)
    (warning,) = [record.getMessage() for record in caplog.records if record.name == "stream.doubts"]
    assert "keys are not in the partition where murmur2 (REC2PM_PARTITIONER) sends them" in warning
    assert worker.counts.keys_compared > 150
    assert worker.counts.keys_misplaced > 100
    counted = {family.name: family.samples[0].value for family in WorkerMetrics(worker).collect() if family.samples}
    assert counted["rec2pm_keys_misplaced"] == worker.counts.keys_misplaced


def test_a_step_that_is_refused_counts_its_keys_once(tmp_path: Path) -> None:
    records = [FakeRecord(b"%d" % user, said(1, 1), 0, user) for user in range(50)]
    link = FakeLink(records, [], refusals=2, width=4)
    worker = worker_on(link, tmp_path, FakeModel(NINE), key_check=KeyCheck("clicks"))
    run_to_end(worker, link)
    assert worker.counts.keys_compared == 50


def test_ids_of_users_are_not_in_the_log_above_debug(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ids = [b"secret-%d" % number for number in range(200)]
    values = [said(10_000 + at, at) for at in range(100)] + [b"nonsense", b"", said(1, -5), said(1, 1 << 62)] * 25
    records = [FakeRecord(user, value, 0, at) for at, (user, value) in enumerate(zip(ids, values, strict=True))]
    records += [FakeRecord(b'"secret-9"', said(1, 1), 0, 200), FakeRecord(ids[0], None, 0, 201)]
    link = FakeLink(records, [60, 120], refusals=1, width=4)
    with caplog.at_level(logging.INFO):
        run_to_end(worker_on(link, tmp_path, FakeModel(3), key_check=KeyCheck("clicks")), link)
    assert len(caplog.records) > 4
    assert not [record.getMessage() for record in caplog.records if "secret" in record.getMessage()]
