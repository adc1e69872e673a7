"""Records of models as values: what is read, what is kept out, and what a rollback returns to."""

import pytest

from stream.promotion.record import CHAMPION, Models, alias_key, encode, new_id, promotion_key, worker_key
from tests.stream.promotion.promotions import NOON, promotion, report


def test_the_newest_record_of_an_alias_counts_and_history_keeps_all() -> None:
    first = promotion("films@1")
    second = promotion("films@2", after=first)
    models = Models()
    for each in (first, second):
        models.apply(promotion_key(each.id), encode(each))
        models.apply(alias_key(each.alias), encode(each))
    assert models.aliases == {CHAMPION: second}
    assert models.newest_first() == [second, first]


def test_a_null_value_deletes_what_its_key_names() -> None:
    models = Models()
    models.apply(worker_key("one"), encode(report("one", promotion("films@1"))))
    models.apply(worker_key("one"), None)
    assert models == Models()


def test_ids_sort_by_time_and_never_repeat() -> None:
    ids = [new_id(NOON + each // 100) for each in range(1000)]
    assert len(set(ids)) == 1000
    assert sorted(ids, key=lambda each: each[:10]) == ids
    assert {len(each) for each in ids} == {26}


@pytest.mark.parametrize("key", [b"", b"alias", b"canary/x", b"\xff", b"worker/"])
def test_a_key_of_another_form_is_kept_out(key: bytes) -> None:
    models = Models()
    models.apply(key, encode(promotion("films@1")))
    assert models.kept_out == {key}
    assert models == Models()
