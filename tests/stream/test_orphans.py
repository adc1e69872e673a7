"""Partitions that are nobody's in two looks at a stable group."""

from stream.orphans import Watch


def test_what_is_nobodys_twice_is_told_and_not_before() -> None:
    watch = Watch()
    assert watch.seen({"a": [0, 1], "b": [3]}, 4) == set()
    assert watch.seen({"a": [0, 1], "b": [3]}, 4) == {2}


def test_another_partition_each_time_is_a_group_at_work() -> None:
    watch = Watch()
    watch.seen({"a": [0], "b": [2]}, 3)
    assert watch.seen({"a": [1], "b": [2]}, 3) == set()


def test_a_group_that_changes_is_looked_at_anew() -> None:
    watch = Watch()
    watch.seen({"a": [0]}, 2)
    assert watch.seen(None, 2) == set()
    assert watch.seen({"a": [0]}, 2) == set()
    assert watch.seen({"a": [0]}, 2) == {1}


def test_where_everything_is_owned_nothing_is_told() -> None:
    watch = Watch()
    for _ in range(3):
        assert watch.seen({"a": [0], "b": [1, 2], "c": []}, 3) == set()
