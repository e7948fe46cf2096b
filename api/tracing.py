"""OpenTelemetry traces: a span for each HTTP request, and one below it for each call of the model server.

The trace's context comes with the request and goes on to the model server (W3C Trace Context). A ``traceparent`` that
is malformed, or there twice, starts a new trace. A call that several requests share is below none of them: it has a
trace of its own, and links to their spans, as these have to it. Names and attributes are OpenTelemetry's semantic
conventions for HTTP and RPC, with ``digitgan.…`` for what is ours.

The only module that imports OpenTelemetry, and imported only where tracing is on: the extra ``otel``.
"""

import logging
import os
import threading
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import version
from typing import Any, Final

import anyio.to_thread
import grpc
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.environment_variables import OTEL_SERVICE_NAME
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import Decision, Sampler, SamplingResult
from opentelemetry.trace import Link, Span, SpanKind, StatusCode, Tracer, TraceState
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import Attributes
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api import observation
from api.coalescing import sharing
from serving.apis import PREDICT, PredictRequest

_UNTRACED: Final = ("/healthz/", "/v2/health/", "/metrics")
"""What machines ask every few seconds."""

_CLOSE_SECONDS: Final = 2.0
_EXPORTER: Final = "opentelemetry.exporter.otlp.proto.grpc.exporter"
"""The exporter's logger."""

_CONTEXT: Final = TraceContextTextMapPropagator()
_HEADERS: Final = frozenset({b"traceparent", b"tracestate"})


class OncePer(logging.Filter):
    """Lets one record pass in each ``seconds``. Without a collector the exporter would log every failed attempt."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self._seconds = seconds
        self._last = -seconds

    def filter(self, record: logging.LogRecord) -> bool:
        """Returns whether the record passes."""
        if record.created - self._last < self._seconds:
            return False
        self._last = record.created
        return True


_ONCE_A_MINUTE: Final = OncePer(60.0)


class Traces:
    """One app's traces, sent by OTLP over gRPC, as OpenTelemetry's environment variables say."""

    def __init__(self) -> None:
        logging.getLogger(_EXPORTER).addFilter(_ONCE_A_MINUTE)
        attributes = {SERVICE_VERSION: version("digitgan")}
        if not os.environ.get(OTEL_SERVICE_NAME):
            attributes[SERVICE_NAME] = "digitgan-gateway"
        self._provider = TracerProvider(resource=Resource.create(attributes), shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._provider.sampler = _SampleShared(self._provider.sampler)
        self.tracer = self._provider.get_tracer("digitgan")

    async def close(self) -> None:
        """Sends what is left to be sent, unless nobody takes it."""
        # A daemon: the exporter tries again for longer than a process that is told to stop may take.
        closing = threading.Thread(target=self._provider.shutdown, daemon=True)
        closing.start()
        await anyio.to_thread.run_sync(closing.join, _CLOSE_SECONDS)


class TraceRequests:
    """ASGI middleware: a server span for each HTTP request."""

    def __init__(self, app: ASGIApp, tracer: Tracer) -> None:
        self._app = app
        self._tracer = tracer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].startswith(_UNTRACED):
            await self._app(scope, receive, send)
            return
        method = scope["method"]
        attributes = {
            "http.request.method": method,
            "url.path": scope["raw_path"].decode("ascii", "backslashreplace"),
            "url.scheme": scope["scheme"],
            "network.protocol.version": scope["http_version"],
        }
        with self._tracer.start_as_current_span(
            method, _context(scope), SpanKind.SERVER, attributes, record_exception=True, set_status_on_exception=True
        ) as span:
            under_way = observation.current.get()
            if under_way:
                under_way.trace_id = trace.format_trace_id(span.get_span_context().trace_id)
                span.set_attribute("digitgan.request_id", under_way.request_id)

            async def noted(message: Message) -> None:
                if message["type"] == "http.response.start":
                    _set_status(span, message["status"])
                await send(message)

            try:
                await self._app(scope, receive, noted)
            finally:
                if route := getattr(scope.get("route"), "path", None):
                    span.update_name(f"{method} {route}")
                    span.set_attribute("http.route", route)
                for model, number in under_way.versions.items() if under_way else ():
                    span.set_attribute(f"digitgan.version.{model}", number)


class TraceCalls(grpc.aio.UnaryUnaryClientInterceptor):
    """gRPC interceptor: a client span for each call that traced requests make, and its context in the metadata."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    async def intercept_unary_unary(
        self, continuation: Any, client_call_details: grpc.aio.ClientCallDetails, request: Any
    ) -> Any:
        spans = _current_spans()
        if not spans:
            return await continuation(client_call_details, request)
        path = client_call_details.method
        name = (path.decode() if isinstance(path, bytes) else path).removeprefix("/")
        service, _, method = name.partition("/")
        attributes = {"rpc.system": "grpc", "rpc.service": service, "rpc.method": method, **_asked(name, request)}
        links = [Link(one.get_span_context()) for one in spans if one.is_recording()] if len(spans) > 1 else []
        above = Context() if links else trace.set_span_in_context(spans[0])
        with self._tracer.start_as_current_span(name, above, SpanKind.CLIENT, attributes, links) as span:
            for one in spans if links else ():
                one.add_link(span.get_span_context())
            carrier: dict[str, str] = {}
            _CONTEXT.inject(carrier)
            metadata = grpc.aio.Metadata(*(client_call_details.metadata or ()), *carrier.items())
            details = grpc.aio.ClientCallDetails(
                client_call_details.method,
                client_call_details.timeout,
                metadata,
                client_call_details.credentials,
                client_call_details.wait_for_ready,
            )
            call = await continuation(details, request)
            with suppress(grpc.aio.AioRpcError):  # whoever called learns it from the call
                await call
            code = await call.code()
            span.set_attribute("rpc.grpc.status_code", code.value[0])
            if code is not grpc.StatusCode.OK:
                span.set_status(StatusCode.ERROR, code.name)
            return call


class _SampleShared(Sampler):
    """Samples each call that sampled requests share, and of all else what ``others`` does: such a call is a root, and
    by its chances alone most traces would lack theirs.
    """

    def __init__(self, others: Sampler) -> None:
        self._others = others

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,
    ) -> SamplingResult:
        if links:
            return SamplingResult(Decision.RECORD_AND_SAMPLE, attributes)
        return self._others.should_sample(parent_context, trace_id, name, kind, attributes, links, trace_state)

    def get_description(self) -> str:
        return f"SampleShared{{{self._others.get_description()}}}"


def _current_spans() -> list[Span]:
    """Returns the span of the request under way, or of each that shares the call under way."""
    span = trace.get_current_span()
    spans = [span] if not sharing.get() else [one.run(trace.get_current_span) for one in sharing.get()]
    return [one for one in spans if one.get_span_context().is_valid]


def _context(scope: Scope) -> Context:
    """Returns the context that the caller sent; an empty one if there is none, or none to be understood."""
    carrier: dict[str, list[str]] = {}
    for name, value in scope["headers"]:
        if name in _HEADERS:
            carrier.setdefault(name.decode(), []).append(value.decode("latin-1"))
    if len(carrier.get("traceparent", ())) != 1:
        return Context()
    return _CONTEXT.extract(carrier, Context())


def _set_status(span: Span, status: int) -> None:
    span.set_attribute("http.response.status_code", status)
    if status >= 500:
        span.set_status(StatusCode.ERROR)
        span.set_attribute("error.type", str(status))


def _asked(name: str, request: Any) -> dict[str, str | int]:
    """Returns what a call asks for."""
    spec = request.model_spec
    asked: dict[str, str | int] = {"digitgan.model": spec.name}
    if spec.HasField("version"):
        asked["digitgan.version"] = spec.version.value
    if name == PREDICT.removeprefix("/"):
        asked["digitgan.signature"] = spec.signature_name
        asked["digitgan.batch_size"] = _rows(request)
    return asked


def _rows(request: PredictRequest) -> int:
    return max(tensor.tensor_shape.dim[0].size for tensor in request.inputs.values())
