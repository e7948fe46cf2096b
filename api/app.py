"""The gateway, assembled: routes, failures, middleware, and what lives as long as the app."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import FastAPI
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp

from api import digits, docs_page, errors, front_page, generate, health, models, openapi, problems, score
from api.cors import Cors, origins_of
from api.dependencies import MetricsDep, State
from api.health import Lifecycle
from api.inference import Inference
from api.keys import CheckKeys, keys_of
from api.metrics import MeasureRequests, Metrics
from api.middleware import BodyLimit, HeadAsGet
from api.security_headers import SecurityHeaders
from api.seed_index import SeedIndexes
from api.settings import Settings
from serving.client import ModelClient


class _Gateway(FastAPI):
    """FastAPI whose outermost layer isn't its own answer to unknown failures: that one gets security headers too."""

    def build_middleware_stack(self) -> ASGIApp:
        return SecurityHeaders(super().build_middleware_stack())


def create_app(settings: Settings) -> FastAPI:
    """Returns a gateway with these settings. Several of them fit in one process."""
    metrics = Metrics()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[State]:
        client = ModelClient(settings.model_server, settings.model_server_tls())
        try:
            inference = Inference(client, metrics)
            indexes = SeedIndexes(inference, metrics, settings.request_timeout_s)
            yield State(settings=settings, metrics=metrics, inference=inference, indexes=indexes)
        finally:
            await client.close()

    app = _Gateway(
        title="digitgan",
        version=version("digitgan"),
        description="Handwritten digits from a generative adversarial network, and a discriminator's opinion of yours."
        " Every error is a problem document (RFC 9457).",
        lifespan=lifespan,
        redirect_slashes=False,
        docs_url=None,
        redoc_url=None,
    )
    app.state.lifecycle = Lifecycle()
    for module in (front_page, docs_page, generate, digits, score, models, health):
        app.include_router(module.router)
    app.add_api_route("/metrics", _metrics, summary="Prometheus metrics", response_class=PlainTextResponse)
    app.add_api_route("/problems/{slug}", _problem_page, include_in_schema=False)
    errors.install(app)
    openapi.install(app, settings)
    # The last one added is the outermost.
    app.add_middleware(BodyLimit, max_bytes=settings.max_body_bytes, timeout_s=settings.body_timeout_s)
    if keys := keys_of(settings.api_keys):
        app.add_middleware(CheckKeys, keys=keys, images_per_minute=settings.key_images_per_minute)
    if origins := origins_of(settings.cors_origins):
        app.add_middleware(Cors, origins=origins)
    app.add_middleware(MeasureRequests, metrics=metrics)
    app.add_middleware(HeadAsGet)
    return app


async def _metrics(metrics: MetricsDep) -> Response:
    """All metrics, in Prometheus' text format."""
    return Response(metrics.exposition(), media_type=CONTENT_TYPE_LATEST)


async def _problem_page(slug: str) -> Response:
    """The page behind a problem's ``type``."""
    for problem in problems.TYPES:
        if problem.slug == slug:
            return PlainTextResponse(problem.page, media_type="text/markdown")
    raise problems.ProblemError(problems.NOT_FOUND, "no such type of problem")
