"""Traces: from HTTP through gRPC to a real OTLP receiver."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as otlp
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import add_TraceServiceServicer_to_server
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from serving.apis import PredictRequest
from tests.support.commands import python
from tests.support.gateways import FaultyClient, faulty_gateway
from tests.support.misbehaving import failing, honest
from tests.support.processes import wait_until

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


class Collector:
    """An OTLP receiver on a real socket: keeps the spans that come, by trace."""

    def __init__(self, server: grpc.Server) -> None:
        self.spans: list[Span] = []
        self.service_name = ""
        add_TraceServiceServicer_to_server(self, server)  # type: ignore[no-untyped-call]
        self.port = server.add_insecure_port("127.0.0.1:0")
        server.start()

    def Export(self, request: otlp.ExportTraceServiceRequest, _: object) -> otlp.ExportTraceServiceResponse:
        for resource in request.resource_spans:
            self.service_name = attributes(resource.resource)["service.name"]
            self.spans += [span for scope in resource.scope_spans for span in scope.spans]
        return otlp.ExportTraceServiceResponse()

    def trace_of(self, request_id: str) -> tuple[Span, list[Span]]:
        """Returns the server span of a request and the spans below it, once they are there."""

        def servers() -> list[Span]:
            return [one for one in self.spans if attributes(one).get("digitgan.request_id") == request_id]

        wait_until(servers, lambda: f"no span of {request_id}")
        (server,) = servers()
        return server, [one for one in self.spans if one.parent_span_id == server.span_id]


def attributes(of: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in of.attributes}


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    server = grpc.server(ThreadPoolExecutor(2))
    yield Collector(server)
    server.stop(grace=0).wait()


@pytest.fixture(scope="module")
def traced(collector: Collector) -> Iterator[FaultyClient]:
    """A client of a gateway that sends its traces to ``collector``."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{collector.port}")
        patch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
        with faulty_gateway(tracing=True, log_format="json", access_log=True) as http:
            yield http


def test_a_request_is_a_span_and_its_call_one_below_it(traced: FaultyClient, collector: Collector) -> None:
    metadata: dict[str, str] = {}

    def note_metadata(request: PredictRequest, context: grpc.ServicerContext) -> bytes:
        metadata.update((key, str(value)) for key, value in context.invocation_metadata())
        return honest(request, context)

    traced.server.behaviour = note_metadata
    headers = {"X-Request-ID": "one", "traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": "vendor=1"}
    traced.get("/digits/7.png", headers=headers)
    span, (call,) = collector.trace_of("one")
    assert collector.service_name == "digitgan-gateway"
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, PARENT)
    assert (span.name, span.kind) == ("GET /digits/{seed}.png", Span.SPAN_KIND_SERVER)
    expected = {
        "http.request.method": "GET",
        "http.route": "/digits/{seed}.png",
        "url.path": "/digits/7.png",
        "http.response.status_code": 200,
        "digitgan.version.generator": 1,
    }
    assert attributes(span).items() >= expected.items()
    assert (call.name, call.kind) == ("tensorflow.serving.PredictionService/Predict", Span.SPAN_KIND_CLIENT)
    expected = {
        "rpc.system": "grpc",
        "rpc.method": "Predict",
        "rpc.grpc.status_code": 0,
        "digitgan.model": "generator",
        "digitgan.batch_size": 1,
    }
    assert attributes(call).items() >= expected.items()
    assert metadata["traceparent"] == f"00-{TRACE}-{call.span_id.hex()}-01"
    assert metadata["tracestate"] == "vendor=1"
    wait_until(lambda: '"request_id":"one"' in traced.process.log)
    (line,) = [line for line in traced.process.log.splitlines() if '"request_id":"one"' in line]
    assert json.loads(line)["trace_id"] == TRACE


def test_failures_are_errors_in_both_spans(traced: FaultyClient, collector: Collector) -> None:
    traced.server.behaviour = failing(grpc.StatusCode.INTERNAL)
    traced.get("/digits/7.png", headers={"X-Request-ID": "failing"})
    span, (call,) = collector.trace_of("failing")
    assert attributes(span)["http.response.status_code"] == 502
    assert attributes(call)["rpc.grpc.status_code"] == grpc.StatusCode.INTERNAL.value[0]
    assert span.status.code == call.status.code == 2  # STATUS_CODE_ERROR


def test_probes_are_not_traced(traced: FaultyClient, collector: Collector) -> None:
    for path in ("/healthz/ready", "/metrics", "/v2/health/ready"):
        assert traced.get(path).status_code == 200
    traced.get("/digits/7.png", headers={"X-Request-ID": "after-the-probes"})
    collector.trace_of("after-the-probes")
    names = {span.name for span in collector.spans}
    assert names <= {"GET /digits/{seed}.png", "tensorflow.serving.PredictionService/Predict"}


def test_an_unreachable_receiver_costs_no_request_and_no_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    with faulty_gateway(tracing=True) as http:
        assert http.get("/digits/7.png").status_code == 200
        assert http.process.stop() == 0


def test_the_setting_without_the_extra_is_refused() -> None:
    code = (
        "import sys; sys.modules['opentelemetry.sdk'] = None;"
        "from api.settings import load_settings; load_settings(tracing=True)"
    )
    assert "DIGITGAN_TRACING=True: needs OpenTelemetry: pip install 'digitgan[otel]'" in python(code).stderr
