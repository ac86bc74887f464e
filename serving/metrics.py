"""What is measured of every request, as Prometheus text; with several workers, the sum over all of them."""

import os
import re
import time
import uuid
from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.models import Serving

MEDIA_TYPE = "text/plain; version=0.0.4"
REQUEST_ID = "request_id"
OTHER_ROUTE = "other"

_BUCKETS_S = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0)
_SANE_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")


class OfModels(Collector):
    """When scraped: seconds since each model was trained and since its data ended, and what was refused."""

    def __init__(self, serving: Serving) -> None:
        self._serving = serving

    def collect(self) -> Iterator[Metric]:
        labels = ("task", "version")
        age = GaugeMetricFamily("shopkeeper_model_age_seconds", "Since training.", labels=labels)
        staleness = GaugeMetricFamily("shopkeeper_model_staleness_seconds", "Since its data ended.", labels=labels)
        refused = GaugeMetricFamily("shopkeeper_model_refused", "Promoted, and failed when tried.", labels=labels)
        models = self._serving.models
        for model in models.served.values():
            age.add_metric([model.task, model.version], model.age_s)
            staleness.add_metric([model.task, model.version], model.staleness_s)
        for task, verdict in models.refused.items():
            refused.add_metric([task, verdict.asked.version], 1)
        yield from (age, staleness, refused)


class Metrics:
    """Requests by route and status, their latency by route, and the ages of the models."""

    def __init__(self, serving: Serving) -> None:
        self._of_models = OfModels(serving)
        self._requests = Counter("shopkeeper_requests", "Requests answered.", ["route", "status"], registry=None)
        self._seconds = Histogram(
            "shopkeeper_request_seconds", "Time to answer.", ["route"], registry=None, buckets=_BUCKETS_S
        )

    def observe(self, route: str, status: int, seconds: float) -> None:
        self._requests.labels(route, status).inc()
        self._seconds.labels(route).observe(seconds)

    def text(self) -> bytes:
        """The Prometheus exposition of all workers that share ``PROMETHEUS_MULTIPROC_DIR``, else of this process."""
        registry = CollectorRegistry()
        registry.register(self._of_models)
        if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        else:
            registry.register(self._requests)
            registry.register(self._seconds)
        return generate_latest(registry)


class Observed:
    """ASGI: gives each request an id, the caller's or a new one, and measures its answer.

    route : from the path asked for to the label that it is counted under
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, route: Callable[[str], str]) -> None:
        self._app = app
        self._metrics = metrics
        self._route = route

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        status = 500
        scope[REQUEST_ID] = request_id = _request_id(scope)

        async def observe(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["x-request-id"] = request_id
            await send(message)

        try:
            await self._app(scope, receive, observe)
        finally:
            self._metrics.observe(self._route(scope["path"]), status, time.perf_counter() - started)


def _request_id(scope: Scope) -> str:
    given: bytes = dict(scope["headers"]).get(b"x-request-id", b"")
    return given.decode("ascii") if _SANE_ID.fullmatch(given) else uuid.uuid4().hex
