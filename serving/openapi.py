"""The description of an endpoint, and the OpenAPI 3.1 document made from all of them."""

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Literal

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from starlette.responses import Response

from serving import problems, schema
from serving.keys import Scope

Json = dict[str, Any]

VERSION = "1.0.0"

_KEY = "key"
_REFUSALS = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.TOO_MANY_REQUESTS)
_REFERENCE = "#/components/schemas/{model}"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One path: what it is asked, what it answers, and the function that answers.

    handle : from what the service knows, the validated request and the Accept header to the response
    request : the body of a POST or PUT, the query parameters of a GET; None when there are none
    answer : what it answers in JSON; None when it answers in other media types only
    media : further media types of the answer
    errors : statuses of the problems that it may answer, but 500
    scope : what a key must allow; None: everybody may ask
    in_thread : whether it answers so slowly that other requests must be answered meanwhile
    """

    method: Literal["GET", "POST", "PUT"]
    path: str
    summary: str
    handle: Callable[..., Response | Awaitable[Response]]
    request: type[schema.Request] | None = None
    answer: type[schema.Answer] | None = None
    media: tuple[str, ...] = ()
    errors: tuple[HTTPStatus, ...] = ()
    status: HTTPStatus = HTTPStatus.OK
    scope: Scope | None = None
    in_thread: bool = False


def document(endpoints: Iterable[Endpoint]) -> Json:
    """The OpenAPI document of these endpoints."""
    endpoints = list(endpoints)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Shopkeeper",
            "version": VERSION,
            "summary": "What a visitor would like, whether they will buy, and how much to stock.",
        },
        "paths": {endpoint.path: {endpoint.method.lower(): _operation(endpoint)} for endpoint in endpoints},
        "components": {"schemas": _schemas(endpoints), "securitySchemes": {_KEY: {"type": "http", "scheme": "bearer"}}},
    }


def _schemas(endpoints: list[Endpoint]) -> Json:
    asked = [(e.request, "validation") for e in endpoints if e.request and e.method != "GET"]
    answered = [(e.answer, "serialization") for e in endpoints if e.answer]
    models: list[tuple[type[BaseModel], Any]] = [*asked, *answered, (schema.ProblemDetails, "serialization")]
    _, definitions = models_json_schema(list(dict.fromkeys(models)), ref_template=_REFERENCE)
    schemas: Json = definitions["$defs"]
    return schemas


def _operation(endpoint: Endpoint) -> Json:
    refusals = _REFUSALS if endpoint.scope else ()
    failures = sorted({*endpoint.errors, *refusals, HTTPStatus.INTERNAL_SERVER_ERROR})
    return {
        "operationId": endpoint.path.strip("/").replace("/", "_").replace(".", "_") or "root",
        "summary": endpoint.summary,
        **_asked(endpoint),
        **({"security": [{}, {_KEY: [endpoint.scope]}]} if endpoint.scope else {}),
        "responses": {str(int(endpoint.status)): _success(endpoint)} | {str(int(s)): _failure(s) for s in failures},
    }


def _asked(endpoint: Endpoint) -> Json:
    if endpoint.request is None:
        return {}
    if endpoint.method != "GET":
        return {"requestBody": {"required": True, "content": {"application/json": _reference(endpoint.request)}}}
    whole = endpoint.request.model_json_schema(ref_template=_REFERENCE)
    required = whole.get("required", [])
    return {"parameters": [_parameter(name, s, name in required) for name, s in whole["properties"].items()]}


def _parameter(name: str, described: Json, required: bool) -> Json:
    parameter = {key: value for key, value in described.items() if key not in ("title", "description", "default")}
    alternatives = [a for a in parameter.get("anyOf", []) if a != {"type": "null"}]
    only = alternatives[0] if len(alternatives) == 1 else parameter
    default = {} if described.get("default") in (None, []) else {"default": described["default"]}
    return {
        "name": name,
        "in": "query",
        "required": required,
        "description": described["description"],
        "schema": only | default,
    }


def _success(endpoint: Endpoint) -> Json:
    content: Json = {media: {"schema": {"type": "string"}} for media in endpoint.media}
    if endpoint.answer:
        content["application/json"] = _reference(endpoint.answer)
    return {"description": endpoint.status.phrase, **({"content": content} if content else {})}


def _failure(status: HTTPStatus) -> Json:
    return {"description": status.phrase, "content": {problems.MEDIA_TYPE: _reference(schema.ProblemDetails)}}


def _reference(model: type[BaseModel]) -> Json:
    return {"schema": {"$ref": _REFERENCE.format(model=model.__name__)}}
