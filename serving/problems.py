"""Every error that the service answers, as ``application/problem+json`` (RFC 9457)."""

from functools import cache
from http import HTTPStatus
from math import ceil
from typing import Any

import orjson
from pydantic import ValidationError
from pydantic_core import ErrorDetails
from starlette.exceptions import HTTPException
from starlette.responses import Response

from serving import schema
from serving.artifact import Json
from serving.keys import Scope

MEDIA_TYPE = "application/problem+json"
MOST_FAULTS = 20
"""Of a request, that are told."""


class Problem(HTTPException):
    """An error with a detail for the caller, and further members of the problem document."""

    def __init__(
        self, status: HTTPStatus, detail: str, headers: dict[str, str] | None = None, **members: object
    ) -> None:
        super().__init__(status, detail, headers)
        self.members = members


def response(error: HTTPException, request_id: str) -> Response:
    """The problem document of an error, with the headers that the error asks for."""
    document = {
        "type": "about:blank",
        "title": HTTPStatus(error.status_code).phrase,
        "status": error.status_code,
        "detail": error.detail,
        "request_id": request_id,
        **getattr(error, "members", {}),
    }
    return Response(orjson.dumps(document), error.status_code, error.headers, media_type=MEDIA_TYPE)


def too_large(limit: int) -> Problem:
    return Problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"The body is larger than {limit} bytes; send less at once.")


def not_json(error: ValueError) -> Problem:
    return Problem(HTTPStatus.BAD_REQUEST, f"The body is not JSON: {error}.")


def wrong_media_type(got: str) -> Problem:
    return Problem(
        HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
        f"The body has content type {got or 'none'}; send JSON with Content-Type: application/json.",
    )


def no_model(task: str) -> Problem:
    return Problem(
        HTTPStatus.SERVICE_UNAVAILABLE,
        f"No {task} model is loaded; promote one with `shopkeeper promote {task}`. GET /v1/models tells why.",
    )


def no_key() -> Problem:
    return Problem(
        HTTPStatus.UNAUTHORIZED,
        "Send a key that there is, as `Authorization: Bearer KEY`; `shopkeeper keys add` makes one.",
        {"www-authenticate": "Bearer"},
    )


def narrow_key(scope: Scope) -> Problem:
    return Problem(HTTPStatus.FORBIDDEN, f"This key lacks the scope {scope}; use one that has it.")


def too_often(wait_s: float) -> Problem:
    seconds = ceil(wait_s)
    return Problem(
        HTTPStatus.TOO_MANY_REQUESTS,
        f"This key asks more often than configs/serving.toml allows; ask again in {seconds} s.",
        {"retry-after": str(seconds)},
    )


def not_written() -> Problem:
    return Problem(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "This could not be written and nothing of it was taken; send it again. The service's log has the reason.",
    )


def unexpected() -> Problem:
    return Problem(HTTPStatus.INTERNAL_SERVER_ERROR, "The service failed; its log has the reason under request_id.")


def invalid(error: ValidationError, model: type[schema.Request]) -> Problem:
    """The faults of a request: where each is, what is wrong there, and what is allowed there."""
    whole = _schema(model)
    found = error.errors(include_url=False, include_input=False)
    count = f"{len(found)} faults" if len(found) > 1 else "1 fault"
    told = "see errors" if len(found) <= MOST_FAULTS else f"errors has the first {MOST_FAULTS}"
    faults = [_fault(details, whole) for details in found[:MOST_FAULTS]]
    return Problem(HTTPStatus.UNPROCESSABLE_ENTITY, f"The request has {count}; {told}.", errors=faults)


def _fault(details: ErrorDetails, whole: Json) -> dict[str, object]:
    return {
        "pointer": "".join(f"/{_escaped(str(part))}" for part in details["loc"]),
        "message": details["msg"],
        "allowed": _allowed(details, whole),
    }


def _escaped(part: str) -> str:
    return part.replace("~", "~0").replace("/", "~1")


def _allowed(details: ErrorDetails, whole: Json) -> Json:
    """The schema of the innermost place that has one on the way to the fault."""
    place = whole
    for part in details["loc"]:
        inner = place.get("items") if isinstance(part, int) else _property(place, part)
        if not isinstance(inner, dict):
            break
        place = inner
    if details["type"] == "extra_forbidden":
        return {"propertyNames": {"enum": list(place["properties"])}}
    return {key: value for key, value in place.items() if key != "title"}


def _property(place: Json, name: str) -> object:
    of_any_name = next(iter(place.get("patternProperties", {}).values()), place.get("additionalProperties"))
    return place.get("properties", {}).get(name, of_any_name)


@cache
def _schema(model: type[schema.Request]) -> Json:
    """The JSON schema of a request in which every reference is what it stands for."""
    whole = model.model_json_schema()
    definitions = whole.pop("$defs", {})

    def resolved(part: Any) -> Any:  # noqa: ANN401
        if isinstance(part, list):
            return [resolved(each) for each in part]
        if not isinstance(part, dict):
            return part
        if "$ref" in part:
            return resolved(definitions[part["$ref"].rpartition("/")[2]])
        return {key: resolved(value) for key, value in part.items()}

    return dict(resolved(whole))
