"""Prometheus metrics, in a registry of each app's own.

Requests are labelled by route template: a million seeds are one time series. Requests to no route are labelled "none".
Models are labelled by the version that answered, never by one that a caller named; calls without an answer have the
version "none".
"""

import math
from collections.abc import Mapping, Sequence
from functools import cache, partial
from importlib.metadata import version as version_of
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from api.telemetry.model_status import ModelStatus
from serving.contract import BATCH_SIZES
from serving.tf_serving.client import ModelServerError

NO_VERSION: Final = "none"

_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """All metrics of one app."""

    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        counter = partial(Counter, registry=registry)
        gauge = partial(Gauge, registry=registry)
        seconds = partial(Histogram, registry=registry, buckets=_SECONDS)

        self.requests = counter(
            "digitgan_http_requests",
            "Requests answered (499: the client left before).",
            ("route", "method", "status"),
        )
        self.request_seconds = seconds(
            "digitgan_http_request_seconds", "From a request's arrival to the end of its answer.", ("route",)
        )
        self.gateway_seconds = seconds(
            "digitgan_gateway_seconds", "A request's time without its waits for the model server.", ("route",)
        )
        self.in_flight = gauge("digitgan_http_requests_in_flight", "Requests being answered now.")
        self.connections = gauge("digitgan_http_connections", "Connections open now.")
        self.cut_off = counter(
            "digitgan_http_cut_off", "Clients disconnected, by the reason: connections or unread answers.", ("why",)
        )
        self.model_seconds = seconds("digitgan_model_seconds", "One call of the model server.", ("model", "version"))
        self.batch_size = Histogram(
            "digitgan_model_batch_size",
            "Rows in one call of the model server.",
            ("model", "version"),
            buckets=BATCH_SIZES,
            registry=registry,
        )
        self.calls_in_flight = gauge(
            "digitgan_model_calls_in_flight", "Calls at the model server: in its queue, or running.", ("model",)
        )
        self.images_in_flight = gauge(
            "digitgan_images_in_flight", "Images in progress, by the size of their requests: small or large.", ("size",)
        )
        self.refusals = counter(
            "digitgan_requests_refused", "Requests refused with 503, because the service was full.", ("route",)
        )
        self.timeouts = counter(
            "digitgan_timeouts", "Requests that ran out of time (504), by part: turn, model or answer.", ("part",)
        )
        self.images = counter("digitgan_images_generated", "Digits made by the generator.", ("version",))
        self.scores = counter("digitgan_scores", "Images scored by the discriminator.", ("version", "verdict"))
        self.labels = counter(
            "digitgan_images_labelled", "Digits labelled, by the source: the seed index or the classifier.", ("source",)
        )
        self.index_fetches = counter(
            "digitgan_seed_index_fetches", "Seed indexes fetched from the model server.", ("version",)
        )
        self.upstream_errors = counter(
            "digitgan_upstream_errors",
            "Failed calls of the model server, by gRPC status code; BAD_ANSWER: a broken contract.",
            ("model", "code"),
        )
        self.model_available = gauge(
            "digitgan_model_available", "1 if a version that serves requests is AVAILABLE, else 0.", ("model",)
        )
        self.serving_version = gauge(
            "digitgan_model_serving_version", "The version that answers requests without a version.", ("model",)
        )
        self.newest_version = gauge(
            "digitgan_model_newest_version", "The newest version that the model server knows, in any state.", ("model",)
        )
        self.newest_failed = gauge(
            "digitgan_model_newest_version_failed",
            "1 if the newest version failed to load, else 0. GET /models shows the error.",
            ("model",),
        )
        self.build = gauge("digitgan_build_info", "1, with the gateway's version.", ("version",))
        self.build.labels(version_of("digitgan")).set(1)
        # Finding a metric by its labels takes longer than counting.
        self._of_request = cache(
            lambda route, method, status: (
                self.requests.labels(route, method, status),
                self.request_seconds.labels(route),
                self.gateway_seconds.labels(route),
            )
        )
        self._of_call = cache(lambda *labels: (self.model_seconds.labels(*labels), self.batch_size.labels(*labels)))

    def observe_request(self, route: str, method: str, status: int, seconds: float, model_seconds: float) -> None:
        """Counts one request. ``model_seconds``: of it, spent waiting for the model server."""
        requests, request_seconds, gateway_seconds = self._of_request(route, method, status)
        requests.inc()
        request_seconds.observe(seconds)
        # Calls overlap the gateway's own work in large answers, so the difference can be negative.
        gateway_seconds.observe(max(0.0, seconds - model_seconds))

    def count_refusal(self, route: str, method: str) -> None:
        """Counts a request that was refused early. Its time isn't observed: percentiles are of work."""
        self.requests.labels(route, method, "503").inc()
        self.refusals.labels(route).inc()

    def observe_call(self, model: str, version: int | None, rows: int, seconds: float) -> None:
        """Counts one call of the model server. ``version``: the one that answered, None if none did."""
        model_seconds, batch_size = self._of_call(model, NO_VERSION if version is None else version)
        model_seconds.observe(seconds)
        batch_size.observe(rows)

    def count_scores(self, version: int, verdicts: Sequence[str | None]) -> None:
        """Counts the images that the discriminator scored, by verdict."""
        for verdict in ("real", "fake"):
            self.scores.labels(str(version), verdict).inc(verdicts.count(verdict))

    def observe_models(self, statuses: Mapping[str, ModelStatus | ModelServerError]) -> None:
        """Notes how the models stand. What isn't known of one is NaN."""
        for model, found in statuses.items():
            status = None if isinstance(found, ModelServerError) else found
            self.model_available.labels(model).set(bool(status and status.serving))
            serving = status.serving.version if status and status.serving else math.nan
            self.serving_version.labels(model).set(serving)
            versions = [one.version for one in status.versions] if status else []
            self.newest_version.labels(model).set(max(versions, default=math.nan))
            self.newest_failed.labels(model).set(bool(status.failed) if status and versions else math.nan)

    def exposition(self) -> bytes:
        """Returns all metrics in Prometheus' text format."""
        return generate_latest(self.registry)
