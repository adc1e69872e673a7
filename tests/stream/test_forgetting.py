"""A forgotten user leaves nothing in the changelog, whatever came before, however polls were cut, and whatever happened
to the step.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given, settings
from hypothesis import strategies as st

from state.codec import user_prefix
from tests.fakes import FakeLink, FakeModel, run_to_end, worker_on
from tests.stream.test_step import SEGMENT, USERS, as_records

bursts = st.lists(
    st.tuples(st.sampled_from(USERS), st.integers(0, 1), st.integers(0, 3 * SEGMENT), st.booleans()),
    min_size=1,
    max_size=8,
)
"""User, partition, so many items, and whether the user is forgotten after them."""


def happenings(bursts: list[tuple[bytes, int, int, bool]]) -> list[tuple[bytes, int | str | None, int]]:
    happened: list[tuple[bytes, int | str | None, int]] = []
    for user, partition, count, forgotten in bursts:
        happened += [(user, item, partition) for item in [*range(count), *([None] if forgotten else [])]]
    return happened


@settings(max_examples=60, deadline=None)
@given(
    bursts,
    st.lists(st.integers(1, 100), max_size=12),
    st.sets(st.sampled_from(USERS), min_size=1),
    st.sampled_from(["interaction", "fold", 2]),
    st.integers(0, 2),
    st.integers(0, 2),
    st.integers(1, 3),
)
def test_no_record_of_a_forgotten_user_is_left_and_no_list(
    before: list[tuple[bytes, int, int, bool]],
    cuts: list[int],
    forgotten: set[bytes],
    cadence: str,
    keep_segments: int,
    refusals: int,
    cache_users: int,
) -> None:
    """Working memory, preference memory and kept segments all have keys that begin with the user's."""
    happened = happenings(before)
    records = as_records(
        [*happened, *((user, None, partition) for user in sorted(forgotten) for partition in (0, 1))], 2
    )
    with TemporaryDirectory() as folder:
        link = FakeLink(records, cuts, refusals=refusals)
        options = {"cadence": cadence, "keep_segments": keep_segments, "cache_users": cache_users}
        run_to_end(worker_on(link, Path(folder), FakeModel(SEGMENT), partitions=(0, 1), **options), link)  # type: ignore[arg-type]
    newest = dict(link.lists())
    for user in forgotten:
        assert not [key for number in (0, 1) for key in link.state(number) if key.startswith(user_prefix(user))]
        assert newest[user] is None, "their list is withdrawn, and nothing follows"
    others = (
        {user for user, item, _ in happened if item is not None}
        - forgotten
        - {user for user, item, _ in happened if item is None}
    )
    for user in others:
        assert [key for number in (0, 1) for key in link.state(number) if key.startswith(user_prefix(user))]
