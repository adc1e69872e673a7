"""The description of the view's answers: `GET /openapi.json`, made from the types that are sent."""

from importlib import metadata
from typing import Any, Final

import msgspec

from model.ids import MAX_ID_BYTES
from stream.commands.view.remembered import Remembered
from stream.commands.view.states import Active
from stream.commands.view.workers import Workers
from stream.wire import Recommendation


class Problem(msgspec.Struct):
    """Why there is no answer."""

    error: str


class About(msgspec.Struct):
    """What this view serves."""

    application: str
    users: bool
    """Whether it follows what is remembered (`--users`)."""
    titles: bool
    token: bool
    """Whether a token is wanted."""


class Ready(msgspec.Struct):
    """Whether everything is read that was in the topics at the start."""

    ready: bool


class ActiveUsers(msgspec.Struct):
    """Who acted lately, the newest first."""

    active: list[Active]


_TYPES: Final = (Recommendation, Remembered, ActiveUsers, Workers, About, Ready, Problem)
_TITLES: Final[dict[str, Any]] = {"type": "object", "additionalProperties": {"type": "string"}}
_LIST_FACTS: Final = ("model", "source", "as_of", "taken", "folds")
_USER: Final[dict[str, Any]] = {
    "name": "user",
    "in": "path",
    "required": True,
    "description": f"A user id of 1 to {MAX_ID_BYTES} bytes of UTF-8, percent-encoded.",
    "schema": {"type": "string", "minLength": 1, "maxLength": MAX_ID_BYTES},
}


def description(*, users: bool, token: bool) -> dict[str, Any]:
    """An OpenAPI 3.1 document of what a view answers.

    Args:
        users: whether it was started with `--users`.
        token: whether it wants one.
    """
    _, schemas = msgspec.json.schema_components(_TYPES, ref_template="#/components/schemas/{name}")
    schemas["List"] = _with(schemas.pop("Recommendation"), user={"type": "string"}, titles=_TITLES)
    facts = {name: schemas["List"]["properties"][name] for name in _LIST_FACTS}
    schemas["User"] = _with(
        schemas.pop("Remembered"),
        titles=_TITLES,
        list={"anyOf": [{"type": "null"}, {"type": "object", "properties": facts, "required": list(facts)}]},
    )
    schemas["List"]["required"].append("user")
    user = "/users/{user}"
    listed = "/recommendations/{user}"
    paths = {
        listed: _get("The newest list of a user", "List", "400 404 503", of_user=True, token=token),
        f"{listed}/stream": _get("Each new list of a user", None, "400 404 503", of_user=True, token=token),
        "/ready": _get("Whether the view is ready", "Ready", "", not_ready="Ready"),
        "/about": _get("What this view serves", "About", ""),
    }
    if users:
        paths |= {
            "/users": _get("Who acted lately", "ActiveUsers", "", token=token),
            user: _get("What is remembered about a user", "User", "400 404 500 503", of_user=True, token=token),
            f"{user}/stream": _get(
                "What is remembered about a user and the list, after each change",
                None,
                "400 503",
                of_user=True,
                token=token,
            ),
            "/workers": _get("What workers do", "Workers", "", token=token),
        }
    secured = {"securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}} if token else {}
    return {
        "openapi": "3.1.0",
        "info": {"title": "rec2pm view", "version": metadata.version("rec2pm")},
        "paths": paths,
        "components": {"schemas": schemas, **secured},
    }


def _with(schema: dict[str, Any], **properties: Any) -> dict[str, Any]:
    return {**schema, "properties": {**schema["properties"], **properties}, "required": list(schema["required"])}


def _get(
    summary: str, answer: str | None, problems: str, *, of_user: bool = False, token: bool = False, not_ready: str = ""
) -> dict[str, Any]:
    """One path. `answer`: the name of its schema; None for a stream of events."""
    content = {"text/event-stream": {"schema": {"type": "string"}}} if answer is None else _json(answer)
    responses = {"200": {"description": summary, "content": content}}
    for status in [*problems.split(), *(["401"] if token else []), *(["503"] if not_ready else [])]:
        responses[status] = {"description": _WHY[status], "content": _json(not_ready or "Problem")}
    return {
        "get": {
            "summary": summary,
            "responses": responses,
            **({"parameters": [_USER]} if of_user else {}),
            **({"security": [{"token": []}]} if token else {}),
        }
    }


_WHY: Final = {
    "400": "The id is too long for a user",
    "401": "The token is missing or wrong",
    "404": "There is nothing about this user",
    "500": "The state cannot be read",
    "503": "Not ready, or too many streams are open",
}


def _json(schema: str) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}
