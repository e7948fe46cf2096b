"""The gateway, assembled: routes, failures, middleware, and what lives as long as the app."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from importlib.metadata import version
from typing import Final

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp

from api import openapi
from api.digits.carried import seed_indexes, stories
from api.http import errors, problems
from api.http.bodies import RouteWithBody
from api.middleware.admission import AdmissionControl
from api.middleware.every_request import EveryRequest
from api.middleware.keys import CheckKeys
from api.oip import routes as oip
from api.routes import cacheable, dataset, generate, pages, score, status
from api.settings import Settings
from api.state import KEY, GatewayState
from api.telemetry.metrics import Metrics
from api.upstream.inference import Inference
from serving.tf_serving.client import GrpcTransport, ModelClient, Transport

# In the order in which a request is compared with them: what comes most often first.
ROUTERS: Final = [module.router for module in (generate, dataset, cacheable, score, status, oip)]
ROUTES: Final = [route for router in ROUTERS for route in router.routes]
for _route in ROUTES:
    assert "POST" not in getattr(_route, "methods", ()) or isinstance(_route, RouteWithBody), _route


def create_app(settings: Settings, transport: Transport | None = None) -> FastAPI:
    """Returns a gateway with these settings. Several of them fit in one process.

    ``transport`` carries its calls, and is closed with it; None: gRPC to the model server in the settings.
    """
    metrics = Metrics()
    admission = AdmissionControl(settings.max_images_in_flight, metrics, ROUTES, counts_arrivals=not settings.api_keys)
    traces = None
    if settings.tracing:
        from api.telemetry.tracing import Traces

        traces = Traces()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, GatewayState]]:
        credentials = settings.model_server_credentials()
        calls = transport or GrpcTransport(settings.model_server, [traces] if traces else [], credentials)
        client = ModelClient(calls, settings.version_label)
        inference = Inference(client, metrics)
        carried = seed_indexes(inference), stories(inference)
        try:
            yield {KEY: GatewayState(settings, metrics, admission, inference, *carried)}
        finally:
            await client.close()
            if traces:
                await traces.close()

    app = FastAPI(
        telemetry=traces.telemetry if traces else {"tracing": False, "metrics": False, "logs": False},
        title="digitgan",
        version=version("digitgan"),
        description="Handwritten digits from a generative adversarial network, and a discriminator's opinion of yours."
        " Every error is a problem document (RFC 9457).",
        lifespan=lifespan,
        servers=[{"url": "."}],  # relative to the document, also behind a proxy that strips a path prefix
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # Starlette's addresses are absolute, and wrong behind proxies
    )
    for router in ROUTERS:
        app.include_router(router)
    app.add_api_route("/problems/{slug}", _problem_page, include_in_schema=False)
    pages.mount(app)
    errors.install(app)
    document = app.openapi
    app.openapi = cache(lambda: openapi.complete(document(), settings))  # type: ignore[method-assign]
    # From the inside out, around Starlette's own layers, so that its answers to unknown failures pass these too.
    layers: ASGIApp = app.build_middleware_stack()
    if settings.api_keys:
        layers = CheckKeys(layers, keys=settings.api_keys, images_per_minute=settings.key_images_per_minute)
    if settings.cors_origins:
        layers = CORSMiddleware(
            layers,
            allow_origins=settings.cors_origins,
            allow_methods=("GET", "HEAD", "POST"),
            allow_headers=("*",),
            expose_headers=("*",),
        )
    app.middleware_stack = EveryRequest(layers, metrics, access_log=settings.access_log)
    return app


async def _problem_page(slug: str) -> Response:
    for problem in problems.TYPES:
        if problem.slug == slug:
            return PlainTextResponse(problem.page, media_type="text/markdown")
    raise problems.ProblemError(problems.NOT_FOUND, "no such type of problem")
