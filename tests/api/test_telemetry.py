"""Logs, metrics and traces: every line carries its request's id, routes are templates, and spans reach a receiver."""

import json
import math
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as otlp
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import add_TraceServiceServicer_to_server
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from api.oip.messages import HEADER_LENGTH
from api.telemetry.logs import MAX_PER_MINUTE
from serving.apis import ModelVersionStatus, PredictRequest
from serving.contract import GENERATOR
from serving.noise import noise_from_seeds
from tests.support.commands import python
from tests.support.gateways import FaultyClient, GatewayClient, faulty_gateway
from tests.support.misbehaving import failing, honest
from tests.support.processes import wait_until


@pytest.mark.parametrize("given", ["a", "5f2c-11", "Root=1-67891233-abcdef012345678912345678", "x" * 128])
def test_a_valid_request_id_comes_back(http: GatewayClient, given: str) -> None:
    for path in ("/healthz/live", "/digits/7.png", "/nowhere"):
        assert http.get(path, headers={"X-Request-ID": given}).headers.get_list("x-request-id") == [given]


@pytest.mark.parametrize("given", [None, "", "x" * 129, 'a"b', "a b", "a\tb", "é"])
def test_any_other_is_replaced(http: GatewayClient, given: str | None) -> None:
    headers = {} if given is None else {b"X-Request-ID": given.encode("latin-1")}
    found = {http.get("/healthz/live", headers=headers).headers["x-request-id"] for _ in range(2)}
    assert len(found) == 2
    assert all(re.fullmatch("[0-9a-f]{32}", one) for one in found)


def test_json_logs_have_an_object_a_line_and_one_line_a_request() -> None:
    with faulty_gateway(log_format="json", access_log=True) as http:
        made = http.get("/digits/7.png?scale=2", headers={"X-Request-ID": "made", "User-Agent": "me"})
        http.get("/nowhere%0aGET%20/forged", headers={"X-Request-ID": "lost"})
        http.server.behaviour = failing(grpc.StatusCode.INTERNAL, "oops")
        http.get("/digits/7.png", headers={"X-Request-ID": "failed"})
        assert http.process.stop() == 0
        lines = [json.loads(line) for line in http.process.log.splitlines()]
    for line in lines:
        assert {"time", "level", "logger", "message"} <= set(line)
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", line["time"])
    assert {"uvicorn.error", "api.access", "api.http.errors"} == {line["logger"] for line in lines}
    requests = {line["request_id"]: line for line in lines if line["logger"] == "api.access"}
    assert set(requests) == {"made", "lost", "failed"}
    line = requests["made"]
    assert (line["client"], line["method"], line["target"]) == ("127.0.0.1", "GET", "/digits/7.png?scale=2")
    assert (line["route"], line["status"], line["bytes"]) == ("/digits/{seed}.png", 200, len(made.content))
    assert (line["versions"], line["user_agent"]) == ({"generator": 1}, "me")
    assert 0 < line["model_seconds"] < line["seconds"]
    assert (requests["lost"]["status"], requests["lost"]["route"]) == (404, "none")
    assert requests["lost"]["target"] == "/nowhere%0aGET%20/forged"
    (warning,) = [line for line in lines if line["level"] == "warning"]
    assert (warning["logger"], warning["request_id"]) == ("api.http.errors", "failed")
    assert "oops" in warning["message"]


def test_text_logs_have_the_id_in_brackets_and_a_kind_of_warning_twenty_times_a_minute() -> None:
    with faulty_gateway() as http:
        http.server.behaviour = failing(grpc.StatusCode.INTERNAL, "oops")
        for place in range(3 * MAX_PER_MINUTE):
            http.get("/digits/7.png", headers={"X-Request-ID": f"number-{place}"})
        http.server.behaviour = failing(grpc.StatusCode.UNKNOWN, "oops")
        http.get("/digits/7.png", headers={"X-Request-ID": "other-kind"})
        wait_until(lambda: "other-kind" in http.process.log)
        lines = [line for line in http.process.log.splitlines() if line.startswith("WARNING")]
    assert all(line.startswith("WARNING api.http.errors: GET /digits/7.png: ") for line in lines)
    assert lines[0].endswith(" [number-0]")
    assert lines[-1].endswith(" [other-kind]")
    assert len(lines) <= 2 * MAX_PER_MINUTE + 1, "a new minute may begin meanwhile"
    assert 1 <= sum("more like it are left out for up to a minute" in line for line in lines) <= 2
    assert not any('"GET' in line for line in http.process.log.splitlines()), "there is no access log by default"


def test_clients_cannot_fill_a_disk_with_what_is_no_request() -> None:
    """Nor with connections beyond the most there may be, nor with upgrades to another protocol."""
    upgrade = b"GET /healthz/live HTTP/1.1\r\nHost: x\r\nConnection: upgrade, close\r\nUpgrade: websocket\r\n\r\n"
    count = 100
    with faulty_gateway(max_connections=1) as http:
        for _ in range(count):
            assert http.exchange(b"hello\r\n\r\n").startswith(b"HTTP/1.1 400 ")
            assert http.exchange(upgrade).startswith(b"HTTP/1.1 200 ")
        with http.connect():
            for _ in range(count):
                assert http.exchange(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").startswith(b"HTTP/1.1 503 ")
        metrics = http.metrics()
        assert http.process.stop() == 0
    assert len([line for line in http.process.log.splitlines() if line.startswith("WARNING")]) <= MAX_PER_MINUTE
    for status in ("400", "503"):
        labels = (("method", "other"), ("route", "none"), ("status", status))
        assert metrics["digitgan_http_requests_total", labels] == count


def test_requests_are_counted_by_route_template(http: GatewayClient) -> None:
    grown = http.growth()
    for seed in range(5):
        http.get(f"/digits/{seed}.png")
    http.get("/nowhere")
    for route, status, count in (("/digits/{seed}.png", "200", 5), ("none", "404", 1)):
        assert grown("http_requests_total", route=route, method="GET", status=status) == count
    routes = {dict(labels)["route"] for _, labels in http.metrics() if "route" in dict(labels)}
    assert not any("5" in route for route in routes)
    wait_until(lambda: http.metric("http_requests_in_flight") == 1)  # the scrape itself
    assert http.metrics()["process_resident_memory_bytes", ()] > 1e6


def test_images_scores_and_batch_sizes_are_counted(http: GatewayClient) -> None:
    grown = http.growth()
    http.post("/generate", json={"seeds": list(range(100))})
    image = http.get("/digits/1.png").content
    http.get("/digits/1.png?version=99")
    scored = http.post("/score", content=image, headers={"Content-Type": "image/png"}).json()
    infer = partial(http.post, headers={HEADER_LENGTH: "0"})
    infer("/v2/models/generator/infer", content=noise_from_seeds(range(3)).tobytes())
    infer("/v2/models/discriminator/infer", content=bytes(2 * 784))
    assert grown("images_generated_total", version="3") == 104
    assert grown("scores_total", version="4", verdict=scored["scores"][0]["verdict"]) >= 1
    assert sum(grown("scores_total", version="4", verdict=verdict) for verdict in ("real", "fake")) == 3
    assert grown("model_batch_size_count", model="generator", version="3") == 3
    assert grown("model_batch_size_sum", model="generator", version="3") == 104
    assert grown("model_batch_size_bucket", model="generator", version="3", le="64.0") == 2
    assert grown("model_batch_size_count", model="generator", version="none") == 1
    assert not any(dict(labels).get("version") == "99" for _, labels in http.metrics()), "clients make no time series"


def test_each_second_of_a_request_is_the_models_or_the_gateways(faulty: FaultyClient) -> None:
    grown = faulty.growth()
    faulty.post("/generate", json={"seeds": list(range(64))})
    total = grown("http_request_seconds_sum", route="/generate")
    own = grown("gateway_seconds_sum", route="/generate")
    model = grown("model_seconds_sum", model="generator", version="1")
    assert grown("model_seconds_count", model="generator", version="1") == 1
    assert min(own, model) > 0
    assert own + model <= total + 1e-9


def test_the_versions_of_a_model_and_a_failed_one_are_metrics(faulty: FaultyClient) -> None:
    names = ("available", "serving_version", "newest_version", "newest_version_failed")

    def standing() -> list[float | None]:
        samples = faulty.metrics()
        values = [samples[f"digitgan_model_{name}", (("model", "generator"),)] for name in names]
        return [None if math.isnan(value) else value for value in values]

    available, end, loading = ModelVersionStatus.AVAILABLE, ModelVersionStatus.END, ModelVersionStatus.LOADING
    assert standing() == [1, 1, 1, 0]
    faulty.server.errors[2] = (15, "no graph")
    for states, expected in (
        ([(2, end), (1, available)], [1, 1, 2, 1]),
        ([(2, loading), (1, available)], [1, 1, 2, 0]),
        ([(3, available), (2, end), (1, end)], [1, 3, 3, 0]),
        ([(2, end), (1, end)], [0, None, 2, 1]),
    ):
        faulty.server.statuses[GENERATOR] = states
        assert standing() == expected
    del faulty.server.statuses[GENERATOR]
    assert standing() == [0, None, None, None]


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
