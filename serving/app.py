"""The HTTP application: one list of endpoints, from which routes and the OpenAPI document derive."""

import asyncio
import csv
import io
import logging
import sqlite3
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import cache
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast, get_origin

import orjson
from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from features.errors import UserError
from features.home import home
from serving import journal, keys, metrics, openapi, orders, pages, plan_schema, problems, schema
from serving.artifact import Json
from serving.journal import Journal
from serving.metrics import Metrics
from serving.models import Models, ServedModel, Serving
from serving.openapi import Endpoint
from serving.problems import Problem
from serving.rates import Rates
from serving.settings import Settings

if TYPE_CHECKING:
    from serving.recommend import Recommender

_log = logging.getLogger(__name__)

_ASKED = (HTTPStatus.UNPROCESSABLE_ENTITY, HTTPStatus.SERVICE_UNAVAILABLE)
_POSTED = (
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    *_ASKED,
)


Asked = TypeVar("Asked")


@dataclass(frozen=True, slots=True)
class Call(Generic[Asked]):
    """One request: what there is to answer from, the validated request, and the Accept header."""

    models: Models
    metrics: Metrics
    asked: Asked
    accept: str

    @property
    def journal(self) -> Journal:
        return journal.opened(home(), self.models.shop)


def build(serving: Serving, settings: Settings) -> Starlette:
    """The application that answers from the models that serve."""
    measured, rates = Metrics(serving), Rates(settings.requests_per_second)
    paths = {endpoint.path for endpoint in ENDPOINTS}
    app = Starlette(
        routes=[
            Route(e.path, _answering(e, serving, measured, rates, settings.max_body_bytes), methods=[e.method])
            for e in ENDPOINTS
        ],
        middleware=[
            Middleware(
                metrics.Observed, metrics=measured, route=lambda path: path if path in paths else metrics.OTHER_ROUTE
            )
        ],
        exception_handlers={HTTPException: _refused},
    )
    app.router.redirect_slashes = False
    return app


def recommendations(call: Call[schema.RecommendationRequest]) -> Response:
    model = _model(call, "recommend")
    asked = call.asked.model_dump()
    recent, degraded = _caught_up(call.journal, model, asked)
    answer = model.answer({**asked, "recent": recent})
    return _json(
        {
            **answer,
            "degraded": [*degraded, *answer["degraded"]],
            "recommendation_id": str(uuid.uuid4()),
            "model_version": model.version,
            "staleness_s": model.staleness_s,
        }
    )


def _caught_up(kept: Journal, model: ServedModel, asked: Json) -> tuple[Json | None, list[str]]:
    """What the visitor did since the model was trained, or why that is not known; the model learns what was put."""
    try:
        shelf = cast("Recommender", model.scorer).shelf
        shelf.put(kept.puts(shelf.newest, model.items_as_of))
        return kept.recent(model.until, asked["user_id"], asked["user_pseudo_id"]), []
    except (sqlite3.Error, OSError):
        _log.exception("The journal cannot be read")
        return None, ["what the visitor did and what the shop changed of late cannot be read"]


async def events(call: Call[schema.EventsRequest]) -> Response:
    told = call.asked.model_dump(mode="json")["events"]
    accepted = await _written(call.journal.append(told))
    return _json({"accepted": accepted, "known": len(told) - accepted}, HTTPStatus.ACCEPTED)


async def items(call: Call[schema.ItemsRequest]) -> Response:
    told = call.asked.model_dump(mode="json")["items"]
    await _written(call.journal.put(told))
    return _json({"items": len(told)})


async def _written(done: Future[int]) -> int:
    """What a write to the journal comes to; raises a Problem when nothing could be written."""
    try:
        return await asyncio.shield(asyncio.wrap_future(done))
    except (sqlite3.Error, OSError) as error:
        _log.exception("The journal cannot be written")
        raise problems.not_written() from error


def propensity(call: Call[schema.PropensityRequest]) -> Response:
    model = _model(call, "propensity")
    return _json({**model.answer(call.asked.model_dump()), "model_version": model.version})


def session(call: Call[schema.SessionRequest]) -> Response:
    model = _model(call, "propensity")
    return _json({**model.answer(call.asked.model_dump(mode="json")), "model_version": model.version})


def forecasts(call: Call[plan_schema.ForecastQuery]) -> Response:
    model = _model(call, "demand")
    query = call.asked.model_dump()
    answer = model.answer({"item_ids": query.pop("item_id"), **query})
    if _prefers_csv(call.accept):
        columns = ("item_id", "location_id", "date", "tier", "mean")
        return _csv(answer["forecasts"], columns, total=answer["total"], cutoff=answer["cutoff"], version=model.version)
    return _json({**answer, "model_version": model.version})


def what_if(call: Call[plan_schema.WhatIfRequest]) -> Response:
    model = _model(call, "demand")
    return _json({**model.answer(call.asked.model_dump(mode="json")), "model_version": model.version})


def order_list(call: Call[plan_schema.OrderQuery]) -> Response:
    query = call.asked.model_dump()
    answer = orders.answer(home(), call.models.shop, {"item_ids": query.pop("item_id"), **query})
    if answer is None:
        detail = f"No order list was made yet; run `shopkeeper reorder --shop {call.models.shop} --out orders.csv`."
        raise Problem(HTTPStatus.NOT_FOUND, detail)
    if _prefers_csv(call.accept):
        told = {"total": answer["total"], "as_of": answer["as_of"], "version": answer["model_version"]}
        return _csv(answer["orders"], tuple(plan_schema.Order.model_fields), **told)
    return _json(answer)


def model_list(call: Call[None]) -> Response:
    served = [_described(model) for model in call.models.served.values()]
    refused = [
        {"task": task, "version": verdict.asked.version, "reason": verdict.fault}
        for task, verdict in call.models.refused.items()
    ]
    return _json({"shop": call.models.shop, "models": served, "absent": _absent(call), "refused": refused})


def livez(_: Call[None]) -> Response:
    return Response("alive\n", media_type="text/plain")


def readyz(call: Call[None]) -> Response:
    if not call.models.served:
        detail = "No model is loaded; train and promote one. GET /v1/models tells why."
        raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, detail)
    return Response("ready\n", media_type="text/plain")


def measurements(call: Call[None]) -> Response:
    return Response(call.metrics.text(), media_type=metrics.MEDIA_TYPE)


def interface(_: Call[None]) -> Response:
    return _json(_document())


def docs(_: Call[None]) -> Response:
    return HTMLResponse(pages.docs(_document()))


def root(_: Call[None]) -> Response:
    return RedirectResponse("docs")


ENDPOINTS = (
    Endpoint(
        "POST",
        "/v1/recommendations",
        "Items that a visitor would like.",
        recommendations,
        schema.RecommendationRequest,
        schema.Recommendations,
        errors=_POSTED,
        scope="recommend",
    ),
    Endpoint(
        "POST",
        "/v1/events",
        "What visitors do: on the disk before the answer, and known to the next recommendation.",
        events,
        schema.EventsRequest,
        schema.EventsTaken,
        errors=_POSTED,
        status=HTTPStatus.ACCEPTED,
        scope="events",
    ),
    Endpoint(
        "PUT",
        "/v1/items",
        "What is sold out, what it costs, what is new: effective at once.",
        items,
        schema.ItemsRequest,
        schema.ItemsTaken,
        errors=_POSTED,
        scope="events",
    ),
    Endpoint(
        "POST",
        "/v1/propensity",
        "How likely customers are to buy, to answer, to leave.",
        propensity,
        schema.PropensityRequest,
        schema.PropensityScores,
        errors=_POSTED,
        scope="recommend",
    ),
    Endpoint(
        "POST",
        "/v1/propensity/session",
        "How likely a running visit is to end in a purchase.",
        session,
        schema.SessionRequest,
        schema.PropensityScores,
        errors=_POSTED,
        scope="recommend",
    ),
    Endpoint(
        "GET",
        "/v1/forecasts",
        "Demand to come, with its quantiles; CSV with Accept: text/csv.",
        forecasts,
        plan_schema.ForecastQuery,
        plan_schema.Forecasts,
        media=("text/csv",),
        errors=_ASKED,
        in_thread=True,
        scope="plan",
    ),
    Endpoint(
        "POST",
        "/v1/forecasts/what-if",
        "What other prices and promotions than planned would do to demand.",
        what_if,
        plan_schema.WhatIfRequest,
        plan_schema.WhatIf,
        errors=_POSTED,
        in_thread=True,
        scope="plan",
    ),
    Endpoint(
        "GET",
        "/v1/orders",
        "What to order, by the latest list of `shopkeeper reorder`; CSV with Accept: text/csv.",
        order_list,
        plan_schema.OrderQuery,
        plan_schema.Orders,
        media=("text/csv",),
        errors=(HTTPStatus.NOT_FOUND, HTTPStatus.UNPROCESSABLE_ENTITY),
        scope="plan",
    ),
    Endpoint(
        "GET",
        "/v1/models",
        "The models that answer, and the tasks without one.",
        model_list,
        answer=schema.ModelList,
        scope="admin",
    ),
    Endpoint("GET", "/livez", "Whether the process runs.", livez, media=("text/plain",)),
    Endpoint(
        "GET",
        "/readyz",
        "Whether at least one model answers.",
        readyz,
        media=("text/plain",),
        errors=(HTTPStatus.SERVICE_UNAVAILABLE,),
    ),
    Endpoint(
        "GET",
        "/metrics",
        "Requests, latencies and model ages for Prometheus.",
        measurements,
        media=("text/plain",),
        scope="admin",
    ),
    Endpoint("GET", "/openapi.json", "This interface as OpenAPI 3.1.", interface, media=("application/json",)),
    Endpoint("GET", "/docs", "This interface for people.", docs, media=("text/html",)),
    Endpoint("GET", "/", "To the documentation.", root, status=HTTPStatus.TEMPORARY_REDIRECT),
)


def _answering(
    endpoint: Endpoint, serving: Serving, measured: Metrics, rates: Rates, max_body_bytes: int
) -> Callable[[Request], Awaitable[Response]]:
    async def respond(request: Request) -> Response:
        try:
            _admit(endpoint, request, serving.models.shop, rates)
            asked = await _asked(endpoint, request, max_body_bytes)
            call = Call(serving.models, measured, asked, request.headers.get("accept", ""))
            answer = await run_in_threadpool(endpoint.handle, call) if endpoint.in_thread else endpoint.handle(call)
            return answer if isinstance(answer, Response) else await answer
        except HTTPException:
            raise
        except UserError as error:
            raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, str(error)) from error
        except Exception as error:
            _log.exception("Request %s failed", request.scope[metrics.REQUEST_ID])
            raise problems.unexpected() from error

    return respond


def _admit(endpoint: Endpoint, request: Request, shop: str, rates: Rates) -> None:
    """Nothing for whoever may ask now; raises a Problem for others."""
    if endpoint.scope is None:
        return
    try:
        holder = keys.of(home(), shop).holder(request.headers.get("authorization", ""))
    except UserError as error:
        _log.exception("Nobody may ask")
        raise problems.unexpected() from error
    if holder is None:
        raise problems.no_key()
    if endpoint.scope not in holder.scopes:
        raise problems.narrow_key(endpoint.scope)
    if wait_s := rates.wait_s(holder.name):
        raise problems.too_often(wait_s)


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return problems.response(error, request.scope[metrics.REQUEST_ID])


async def _asked(endpoint: Endpoint, request: Request, max_body_bytes: int) -> schema.Request | None:
    if endpoint.request is None:
        return None
    values = _query(endpoint.request, request) if endpoint.method == "GET" else await _body(request, max_body_bytes)
    try:
        return endpoint.request.model_validate(values)
    except ValidationError as error:
        raise problems.invalid(error, endpoint.request) from error


def _query(model: type[schema.Request], request: Request) -> dict[str, object]:
    """Query parameters: those that the model has as lists always as lists, others only when they are repeated."""
    lists = {name for name, field in model.model_fields.items() if get_origin(field.annotation) is list}
    values = {name: request.query_params.getlist(name) for name in request.query_params}
    return {name: given if name in lists or len(given) > 1 else given[0] for name, given in values.items()}


async def _body(request: Request, limit: int) -> object:
    media_type = request.headers.get("content-type", "")
    if media_type.partition(";")[0].strip().lower() != "application/json":
        raise problems.wrong_media_type(media_type)
    try:
        return orjson.loads(await _read(request, limit))
    except orjson.JSONDecodeError as error:
        raise problems.not_json(error) from error


async def _read(request: Request, limit: int) -> bytes:
    """The body, read no further than the limit, whatever Content-Length says."""
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > limit:
                raise problems.too_large(limit)
    except ClientDisconnect as error:
        raise Problem(HTTPStatus.BAD_REQUEST, "The connection closed before the body was complete.") from error
    return bytes(body)


def _model(call: Call[Any], task: str) -> ServedModel:
    model = call.models.served.get(task)
    if model is None:
        raise problems.no_model(task)
    return model


def _described(model: ServedModel) -> dict[str, object]:
    manifest = model.manifest
    return {
        "task": model.task,
        "version": model.version,
        "model": manifest["model"],
        "window": manifest["window"],
        "created_at": manifest["created_at"],
        "age_s": model.age_s,
        "staleness_s": model.staleness_s,
        "metrics": manifest["metrics"],
    }


def _absent(call: Call[Any]) -> list[dict[str, str]]:
    return [{"task": task, "reason": reason} for task, reason in call.models.absent.items()]


def _json(answer: object, status: HTTPStatus = HTTPStatus.OK) -> Response:
    return Response(orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY), status, media_type="application/json")


def _csv(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], version: str, **told: object) -> Response:
    """Rows under all the names that they have, else under ``columns``; what else is told stands in headers."""
    text = io.StringIO()
    flat = [_flat(row) for row in rows]
    writer = csv.DictWriter(text, list(dict.fromkeys(name for row in flat for name in row)) or columns)
    writer.writeheader()
    writer.writerows(flat)
    headers = {f"x-{name.replace('_', '-')}": str(value) for name, value in told.items()}
    return Response(text.getvalue(), headers={**headers, "x-model-version": version}, media_type="text/csv")


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row whose effects have a column each."""
    effects = {f"effect_{group}": factor for group, factor in row.get("effects", {}).items()}
    return {name: value for name, value in row.items() if name != "effects"} | effects


def _prefers_csv(accept: str) -> bool:
    weights = dict(map(_weighted, accept.lower().split(",")))
    csv_weight = weights.get("text/csv", 0.0)
    return csv_weight > weights.get("application/json", 0.0) and csv_weight >= weights.get("*/*", 0.0)


def _weighted(accepted: str) -> tuple[str, float]:
    media_type, _, parameters = accepted.partition(";")
    _, _, weight = parameters.partition("q=")
    try:
        return media_type.strip(), float(weight or 1)
    except ValueError:
        return media_type.strip(), 0.0


@cache
def _document() -> openapi.Json:
    return openapi.document(ENDPOINTS)
