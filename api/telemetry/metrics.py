"""Prometheus metrics, in a registry of each app's own.

Requests are labelled by route template: a million seeds are one time series. Models are labelled by the version that
answered, never by one that a caller named. Where there is no route or no answer, the label is "none".
"""

from collections.abc import Sequence
from functools import partial
from importlib.metadata import version as version_of
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

from serving.contract import BATCH_SIZES

NO_VERSION: Final = "none"
_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """All metrics of one app."""

    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        counter = partial(Counter, registry=registry)
        gauge = partial(Gauge, registry=registry)
        histogram = partial(Histogram, registry=registry)
        seconds = partial(histogram, buckets=_SECONDS)

        self.requests = counter(
            "digitgan_http_requests", "Requests answered (499: the client left before).", ("route", "method", "status")
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
        self.batch_size = histogram(
            "digitgan_model_batch_size",
            "Rows in one call of the model server.",
            ("model", "version"),
            buckets=BATCH_SIZES,
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

    def count_scores(self, version: int, verdicts: Sequence[str | None]) -> None:
        """Counts the images that the discriminator scored, by verdict."""
        for verdict in ("real", "fake"):
            self.scores.labels(str(version), verdict).inc(verdicts.count(verdict))
