"""Where requests begin, however the bytes of a connection come."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from tests.crash.requests import END_TXN, Requests


def request(api: int, client: bytes, more: bytes) -> bytes:
    body = api.to_bytes(2) + b"\0\1" + b"\0\0\0\7" + len(client).to_bytes(2) + client + more
    return len(body).to_bytes(4) + body


requests = st.lists(st.tuples(st.integers(0, 70), st.binary(max_size=20), st.binary(max_size=60)), max_size=12)


@given(requests, st.lists(st.integers(1, 40)))
def test_requests_are_found_where_they_begin_however_the_bytes_come(
    sent: list[tuple[int, bytes, bytes]], sizes: Sequence[int]
) -> None:
    whole = [request(*each) for each in sent]
    stream = b"".join(whole)
    starts = {sum(map(len, whole[:at])): (api, client) for at, (api, client, _) in enumerate(sent)}
    following, at, found = Requests(), 0, []
    for size in [*sizes, len(stream)]:
        chunk = stream[at : at + size]
        for each in following.found(chunk):
            assert at + each.start in starts
            assert stream[at + each.start : at + each.end] in whole
            if each.api is not None and at + each.end <= at + size:
                assert (each.api, each.client) == starts[at + each.start]
            found.append(at + each.start)
        at += len(chunk)
    assert set(found) <= set(starts)


@given(requests)
def test_every_request_is_found_in_bytes_that_come_at_once(sent: list[tuple[int, bytes, bytes]]) -> None:
    stream = b"".join(request(*each) for each in sent)
    assert [(each.api, each.client) for each in Requests().found(stream)] == [(api, client) for api, client, _ in sent]


def test_bytes_that_are_no_requests_are_no_reason_to_fail() -> None:
    following = Requests()
    for chunk in (b"\0", b"\0\0", b"\xff" * 9, b"a", b""):
        assert all(each.api != END_TXN for each in following.found(chunk))
