"""OpenTelemetry traces: FastAPI makes a span for each request, and this module one below it for each model server call.

Only this module needs OpenTelemetry's SDK (the extra ``otel``). The app imports it only where tracing is on.
"""

import asyncio
import logging
import os
import threading
from importlib.metadata import version
from typing import Any, Final

import grpc
from fastapi.telemetry import TelemetryConfig
from opentelemetry import propagate, trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.environment_variables import OTEL_SERVICE_NAME
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from api.telemetry.logs import LimitRepeats

_UNTRACED: Final = ("/healthz/", "/v2/health/", "/metrics")  # machines poll these paths every few seconds
_CLOSE_SECONDS: Final = 2.0

# Without a collector the exporter would log every failed attempt.
logging.getLogger("opentelemetry.exporter.otlp.proto.grpc.exporter").addFilter(LimitRepeats(1))


class Traces(grpc.aio.UnaryUnaryClientInterceptor):
    """The traces of one app, sent by OTLP over gRPC. OpenTelemetry's environment variables configure the exporter.

    For FastAPI it is ``telemetry``. For gRPC it is an interceptor: it makes a client span below a request's span for
    each call, and sends its context along.
    """

    def __init__(self) -> None:
        attributes = {SERVICE_VERSION: version("digitgan")}
        if not os.environ.get(OTEL_SERVICE_NAME):
            attributes[SERVICE_NAME] = "digitgan-gateway"
        self._provider = TracerProvider(resource=Resource.create(attributes), shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self.telemetry: TelemetryConfig = {
            "tracer_provider": self._provider,
            "operation_spans": False,
            "exclude": lambda scope: scope["path"].startswith(_UNTRACED),
        }
        self._tracer = self._provider.get_tracer("digitgan")

    async def close(self) -> None:
        """Sends the remaining spans, for at most _CLOSE_SECONDS."""
        # A daemon thread: the exporter retries for longer than a process that is stopping may take.
        closing = threading.Thread(target=self._provider.shutdown, daemon=True)
        closing.start()
        await asyncio.to_thread(closing.join, _CLOSE_SECONDS)

    async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        if not trace.get_current_span().get_span_context().is_valid:
            return await continuation(client_call_details, request)
        name = client_call_details.method.decode().removeprefix("/")
        service, _, method = name.partition("/")
        attributes = {"rpc.system": "grpc", "rpc.service": service, "rpc.method": method, **_call_attributes(request)}
        with self._tracer.start_as_current_span(name, kind=trace.SpanKind.CLIENT, attributes=attributes) as span:
            context: dict[str, str] = {}
            propagate.inject(context)
            metadata = grpc.aio.Metadata(*(client_call_details.metadata or ()), *context.items())
            call = await continuation(client_call_details._replace(metadata=metadata), request)
            code = await call.code()
            span.set_attribute("rpc.grpc.status_code", code.value[0])
            if code is not grpc.StatusCode.OK:
                span.set_status(trace.StatusCode.ERROR, code.name)
            return call


def _call_attributes(request: Any) -> dict[str, str | int]:
    spec = request.model_spec
    attributes: dict[str, str | int] = {"digitgan.model": spec.name}
    if spec.HasField("version"):
        attributes["digitgan.version"] = spec.version.value
    if hasattr(request, "inputs"):
        attributes["digitgan.signature"] = spec.signature_name
        rows = (tensor.tensor_shape.dim[0].size for tensor in request.inputs.values())
        attributes["digitgan.batch_size"] = max(rows)
    return attributes
