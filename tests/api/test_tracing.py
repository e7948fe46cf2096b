"""Traces: from HTTP through gRPC to a real OTLP receiver."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from serving.apis import PredictRequest
from tests.api import processes
from tests.api.misbehaving import MisbehavingServer, failing, honest

EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


class Collector(grpc.GenericRpcHandler):
    """An OTLP receiver on a real socket: keeps the spans that come, by trace."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.service_name = ""
        self._arrived = threading.Condition()
        self._server = grpc.server(ThreadPoolExecutor(2))
        self._server.add_generic_rpc_handlers((self,))
        self.port = self._server.add_insecure_port("127.0.0.1:0")

    def __enter__(self) -> Collector:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop(grace=0).wait()

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        return grpc.unary_unary_rpc_method_handler(self._export) if details.method == EXPORT else None

    def _export(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        with self._arrived:
            for resource in ExportTraceServiceRequest.FromString(request).resource_spans:
                self.service_name = attributes(resource.resource)["service.name"]
                self.spans += [span for scope in resource.scope_spans for span in scope.spans]
            self._arrived.notify_all()
        return ExportTraceServiceResponse().SerializeToString()

    def trace_of(self, request_id: str) -> tuple[Span, list[Span]]:
        """Returns the server span of a request and the spans below it, once they are there."""

        def servers() -> list[Span]:
            return [one for one in self.spans if attributes(one).get("digitgan.request_id") == request_id]

        with self._arrived:
            assert self._arrived.wait_for(servers, 20), f"no span of {request_id}"
            (server,) = servers()
            return server, [one for one in self.spans if one.parent_span_id == server.span_id]


def attributes(of: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in of.attributes}


class Traced:
    """A traced gateway, and what its model server was sent with each call."""

    def __init__(self, http: httpx.Client, collector: Collector, server: MisbehavingServer) -> None:
        self.http = http
        self.collector = collector
        self.server = server
        self.metadata: dict[str, str] = {}

    def ask(self, request_id: str, *headers: tuple[str, str]) -> tuple[Span, list[Span]]:
        self.http.get("/digits/7.png", headers=[("X-Request-ID", request_id), *headers])
        return self.collector.trace_of(request_id)

    def hear(self, request: PredictRequest, context: grpc.ServicerContext) -> bytes:
        """A behaviour: notes what comes with the call."""
        self.metadata = {key: str(value) for key, value in context.invocation_metadata()}
        return honest(request, context)


@contextmanager
def traced_gateway(**environment: str) -> Iterator[Traced]:
    with Collector() as collector, MisbehavingServer("127.0.0.1:0") as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{collector.port}")
        patch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
        for name, setting in environment.items():
            patch.setenv(name, setting)
        with processes.serving(server.target, tracing=True, log_format="json", access_log=True) as http:
            yield Traced(http, collector, server)


@pytest.fixture(scope="module")
def traced() -> Iterator[Traced]:
    with traced_gateway() as traced:
        yield traced


@pytest.fixture(autouse=True)
def _heard(traced: Traced) -> Iterator[None]:
    traced.metadata = {}
    traced.server.behaviour = traced.hear
    yield
    traced.server.behaviour = honest


def test_a_request_is_a_span_and_its_call_one_below_it(traced: Traced) -> None:
    server, (call,) = traced.ask("one", ("traceparent", f"00-{TRACE}-{PARENT}-01"), ("tracestate", "vendor=1"))
    assert traced.collector.service_name == "digitgan-gateway"
    assert (server.trace_id.hex(), server.parent_span_id.hex()) == (TRACE, PARENT)
    assert (server.name, server.kind) == ("GET /digits/{seed}.png", Span.SPAN_KIND_SERVER)
    told = attributes(server)
    assert told["http.request.method"] == "GET"
    assert told["http.route"] == "/digits/{seed}.png"
    assert told["url.path"] == "/digits/7.png"
    assert told["http.response.status_code"] == 200
    assert told["digitgan.version.generator"] == 1
    assert (call.name, call.kind) == ("tensorflow.serving.PredictionService/Predict", Span.SPAN_KIND_CLIENT)
    told = attributes(call)
    assert (told["rpc.system"], told["rpc.method"], told["rpc.grpc.status_code"]) == ("grpc", "Predict", 0)
    assert (told["digitgan.model"], told["digitgan.batch_size"]) == ("generator", 1)
    assert traced.metadata["traceparent"] == f"00-{TRACE}-{call.span_id.hex()}-01"
    assert traced.metadata["tracestate"] == "vendor=1"


def test_failures_are_errors_in_both_spans(traced: Traced) -> None:
    traced.server.behaviour = failing(grpc.StatusCode.INTERNAL)
    server, (call,) = traced.ask("failing")
    assert attributes(server)["http.response.status_code"] == 502
    assert attributes(call)["rpc.grpc.status_code"] == grpc.StatusCode.INTERNAL.value[0]
    assert server.status.code == call.status.code == 2  # STATUS_CODE_ERROR


def test_probes_are_not_traced(traced: Traced) -> None:
    for path in ("/healthz/ready", "/metrics", "/v2/health/ready"):
        assert traced.http.get(path, headers={"X-Request-ID": "probe"}).status_code == 200
    traced.ask("after-the-probes")
    names = {span.name for span in traced.collector.spans}
    assert names <= {"GET /digits/{seed}.png", "tensorflow.serving.PredictionService/Predict"}


def test_an_unreachable_receiver_costs_no_request_and_no_stop(faulty_server: MisbehavingServer) -> None:
    os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = "http://127.0.0.1:9"
    try:
        with processes.gateway(faulty_server.target, tracing=True) as process:
            assert httpx.get(f"{processes.url_of(process)}/digits/7.png").status_code == 200
            assert process.stop() == 0
    finally:
        del os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"]


def test_the_setting_without_the_extra_is_refused() -> None:
    code = (
        "import sys; sys.modules['opentelemetry.sdk'] = None; import importlib.util;"
        "from api.settings import load_settings; load_settings(tracing=True)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "DIGITGAN_TRACING=True: needs OpenTelemetry: pip install 'digitgan[otel]'" in done.stderr
