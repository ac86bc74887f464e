"""An application of the service in this process, whose models are doubles that answer at once."""

import asyncio
from datetime import UTC, datetime

import httpx
import numpy as np

from features.errors import UserError
from serving import app, schema, shelf
from serving.catalogue import Catalogue
from serving.models import Models, ServedModel, Serving
from serving.settings import Settings

MAX_BODY_BYTES = 4096
SUFFICIENCY = {"n_examples": 9, "n_rarer_outcomes": 4, "n_days": 9, "n_censored": 0}


class Shelf:
    """Recommends the items a, b, c in this order."""

    def __init__(self):
        self.shelf = shelf.Shelf(list("abc"), Catalogue({}, 3))

    def answer(self, request):
        self.asked = request
        if request["user_id"] == "breaks":
            raise RuntimeError("secret of the house")
        items = [item_id for item_id in "abc" if item_id not in request["exclude_ids"]][: request["n"]]
        scored = [{"item_id": item_id, "score": np.float32(1), "reason": "popular now"} for item_id in items]
        return {"items": scored, "tier": "popular", "degraded": ["unknown visitor"]}


class Oracle:
    """Gives every customer the probability one half."""

    def answer(self, request):
        self.asked = request
        score = {"probability": np.float64(0.5), "percentile": 50.0, "tier": "middle", "reasons": ["buys weekly"]}
        return {
            "target": "repurchase_28d",
            "as_of": "2024-02-01T00:00:00+00:00",
            "sufficiency": {**SUFFICIENCY, "verdict": "enough", "enough": True},
            "scores": [{"user_id": user_id, **score} for user_id in request.get("user_ids", ["d"])],
        }


class Almanac:
    """Forecasts five rows, whatever is asked."""

    def answer(self, request):
        self.asked = request
        if "changes" in request:
            return self.changed(request["changes"])
        if request["location_id"] == "nowhere":
            raise UserError("location_id nowhere is unknown; allowed: north, south")
        why = {"level": 3.0, "effects": {"price": 0.5}} if request["explain"] else {}
        rows = [
            {"item_id": "=a,1", "location_id": "", "date": f"2024-02-0{day}", "tier": "trees", "mean": 1.5}
            | {"q0.05": 0.0, "q0.95": 4.0}
            | why
            for day in range(1, 6)
        ]
        return {
            "cutoff": "2024-02-01",
            "total": 5,
            "unknown_item_ids": [],
            "forecasts": rows[request["offset"] : request["offset"] + request["limit"]],
        }

    def changed(self, changes):
        if changes[0]["location_id"] == "nowhere":
            raise UserError("item a is not sold at nowhere; allowed are north, south")
        row = {"item_id": changes[0]["item_id"], "location_id": None, "date": "2024-02-01", "tier": "trees"}
        units = {"before": {"mean": 2.0, "q0.5": 2.0}, "after": {"mean": 3.0, "q0.5": 3.0}}
        return {"cutoff": "2024-02-01", "unknown_item_ids": [], "forecasts": [{**row, **units, "effect": 1.5}]}


def served(task, scorer, version="7"):
    at = datetime(2024, 2, 1, tzinfo=UTC)
    manifest = {
        "task": task,
        "model": "fake",
        "window": {"from": "2023-02-01", "until": "2024-02-01"},
        "created_at": at.isoformat(),
        "metrics": {"ndcg_at_10": 0.1},
    }
    return ServedModel(task, version, manifest, scorer, at, at, at)


SCORERS = {"recommend": Shelf(), "propensity": Oracle(), "demand": Almanac()}
WHOLE = Models("mini", {task: served(task, scorer) for task, scorer in SCORERS.items()})
EMPTY = Models("mini", absent={"recommend": "mini has no recommend champion"})
APP = app.build(Serving(WHOLE), Settings(max_body_bytes=MAX_BODY_BYTES))


class Client:
    """Requests to an application in this process."""

    def __init__(self, application):
        self.client = httpx.AsyncClient(transport=httpx.ASGITransport(application), base_url="http://shop")

    def request(self, method, path, **options):
        return asyncio.run(self.client.request(method, path, **options))

    def get(self, path, **options):
        return self.request("GET", path, **options)

    def post(self, path, **options):
        return self.request("POST", path, **options)


def post(client, body, path="/v1/recommendations", content_type="application/json"):
    return client.post(path, content=body, headers={"content-type": content_type} if content_type else {})


def problem(response, status):
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    details = schema.ProblemDetails.model_validate_json(response.content)
    assert details.status == status
    assert details.request_id == response.headers["x-request-id"]
    return details
