"""Prometheus metrics, in a registry of each app's own, and the middleware that measures requests.

Requests are labelled by route template: a million seeds are one time series. Requests to no route are
labelled "none".
"""

import os
import time
from contextvars import ContextVar
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.workers import METRICS_DIR

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


@dataclass
class ModelTime:
    """The seconds that one request has waited for the model server."""

    seconds: float = 0.0


_model_time: ContextVar[ModelTime | None] = ContextVar("model_time", default=None)


def note_wait(seconds: float) -> None:
    """Notes that the request under way has waited for the model server."""
    if waited := _model_time.get():
        waited.seconds += seconds


class Metrics:
    """All metrics of one app."""

    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self.requests = Counter(
            "digitgan_http_requests", "Requests answered.", ("route", "method", "status"), registry=registry
        )
        self.request_seconds = Histogram(
            "digitgan_http_request_seconds",
            "From a request's arrival to the end of its answer.",
            ("route",),
            buckets=_SECONDS,
            registry=registry,
        )
        self.gateway_seconds = Histogram(
            "digitgan_gateway_seconds",
            "A request's time without its waits for the model server.",
            ("route",),
            buckets=_SECONDS,
            registry=registry,
        )
        self.in_flight = Gauge(
            "digitgan_http_requests_in_flight",
            "Requests being answered now.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self.model_seconds = Histogram(
            "digitgan_model_seconds",
            "One call of the model server.",
            ("model",),
            buckets=_SECONDS,
            registry=registry,
        )
        self.images = Counter(
            "digitgan_images_generated", "Digits made by the generator.", ("version",), registry=registry
        )
        self.scores = Counter(
            "digitgan_scores",
            "Images scored by the discriminator.",
            ("version", "verdict"),
            registry=registry,
        )
        self.labels = Counter(
            "digitgan_images_labelled",
            "Digits labelled, by who knew: the generator's seed index or the classifier.",
            ("source",),
            registry=registry,
        )
        self.index_fetches = Counter(
            "digitgan_seed_index_fetches",
            "Seed indexes of the generator fetched from the model server.",
            ("version",),
            registry=registry,
        )
        self.upstream_errors = Counter(
            "digitgan_upstream_errors",
            "Calls of the model server that failed, by gRPC status code; BAD_ANSWER: it broke the contract.",
            ("model", "code"),
            registry=registry,
        )

    def exposition(self) -> bytes:
        """Returns all metrics in Prometheus' text format; with several workers, those of all of them together."""
        if METRICS_DIR not in os.environ:
            return generate_latest(self.registry)
        all_workers = CollectorRegistry()
        MultiProcessCollector(all_workers)  # type: ignore[no-untyped-call]
        return generate_latest(all_workers)


class MeasureRequests:
    """ASGI middleware: counts and times every HTTP request."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = 500  # what the outer layers answer if nothing comes from here

        async def note_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        metrics, waited = self._metrics, ModelTime()
        _model_time.set(waited)
        metrics.in_flight.inc()
        start = time.perf_counter()
        try:
            await self._app(scope, receive, note_status)
        finally:
            seconds = time.perf_counter() - start
            metrics.in_flight.dec()
            route = getattr(scope.get("route"), "path", "none")
            method = scope["method"] if scope["method"] in _METHODS else "other"
            metrics.requests.labels(route, method, str(status)).inc()
            metrics.request_seconds.labels(route).observe(seconds)
            # Calls overlap the gateway's own work in large answers, so the difference can be negative.
            metrics.gateway_seconds.labels(route).observe(max(0.0, seconds - waited.seconds))
