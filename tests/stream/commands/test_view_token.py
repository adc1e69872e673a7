"""Who is let in, and what is not there without `--users`: the view's own routes over HTTP, without Kafka."""

import logging
from urllib.parse import unquote

import msgspec
import pytest

pytest.importorskip("faust", reason="the extra `view` is not installed")

from stream.commands.view import token
from stream.errors import SettingsInvalid
from tests.stream.commands.test_view_limits import asked, get, in_a_loop, serving

SECRET = "kept-by-the-test-0123456789"
TOLD_ONLY_WITH_IT = (
    "/recommendations/ann",
    "/recommendations/ann/stream",
    "/users",
    "/users/ann",
    "/users/ann/stream",
    "/workers",
    "/no/such",
)
WRONG = (
    "",
    "Bearer wrong",
    f"Bearer {SECRET}x",
    f"Bearer {SECRET[:-1]}",
    f"Basic {SECRET}",
    SECRET,
    "Bearer",
    "Bearer \u00fc\u2603",
)


@pytest.mark.parametrize("path", TOLD_ONLY_WITH_IT)
@in_a_loop
async def test_who_has_not_the_token_is_told_nothing(path: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with serving(middlewares=[token.required(token.checked(SECRET))]) as port:
        for wrong in WRONG:
            answer = await asked(port, get(path, *([f"Authorization: {wrong}"] if wrong else [])))
            assert answer.startswith(b"HTTP/1.1 401 "), wrong
            assert b"WWW-Authenticate: Bearer" in answer
            assert b"ann" not in answer
        right = await asked(port, get(path, f"Authorization: Bearer {SECRET}"), 400)
        assert not right.startswith(b"HTTP/1.1 401 ")
    assert SECRET not in caplog.text


@in_a_loop
async def test_what_tells_nothing_of_users_needs_no_token() -> None:
    async with serving(middlewares=[token.required(token.checked(SECRET))]) as port:
        for path in token.OPEN:
            assert (await asked(port, get(path))).startswith(b"HTTP/1.1 200 "), path


@pytest.mark.parametrize("given", ["", "short", "x" * 15, "a b" * 10, "x" * 1001, "ü" * 20, "x" * 20 + "\n"])
def test_a_token_that_is_weak_or_cannot_be_sent_is_refused_without_showing_it(given: str) -> None:
    with pytest.raises(SettingsInvalid, match="REC2PM_VIEW_TOKEN: expected") as refused:
        token.checked(given)
    assert not given or given not in str(refused.value)


@in_a_loop
async def test_without_users_nothing_of_them_is_there() -> None:
    async with serving() as port:
        for path in ("/users", "/users/ann", "/users/ann/stream", "/workers"):
            answer = await asked(port, get(path))
            assert answer.startswith(b"HTTP/1.1 404 "), path
            assert "start it with --users" in msgspec.json.decode(answer.partition(b"\r\n\r\n")[2])["error"]


@pytest.mark.parametrize("user", ["%7B", "%7Bann%7D", "%7D", "a%2Fb", "%25", "%3F", "..%2F", "%C3%BC", "a%20b", "%2B"])
@in_a_loop
async def test_an_id_may_have_any_characters(user: str) -> None:
    async with serving() as port:
        answer = await asked(port, get(f"/recommendations/{user}"))
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert msgspec.json.decode(answer.partition(b"\r\n\r\n")[2])["user"] == unquote(user)


@in_a_loop
async def test_a_longer_id_than_any_user_has_is_refused() -> None:
    async with serving() as port:
        for path in ("/recommendations/{}", "/recommendations/{}/stream", "/users/{}", "/users/{}/stream"):
            assert (await asked(port, get(path.format("x" * 256)))).startswith(b"HTTP/1.1 400 "), path
            assert (await asked(port, get(path.format("%C3%BC" * 128)))).startswith(b"HTTP/1.1 400 "), path


@in_a_loop
async def test_a_browser_may_load_nothing_from_elsewhere() -> None:
    async with serving() as port:
        for path in ("/", "/page.css", "/page.js"):
            answer = await asked(port, get(path), 10_000_000)
            assert b"Content-Security-Policy: default-src 'none'; script-src 'self'; style-src 'self'; " in answer, path
            assert b"X-Content-Type-Options: nosniff" in answer
            assert b"http://" not in answer
            assert b"https://" not in answer
