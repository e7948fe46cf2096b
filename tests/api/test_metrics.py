"""GET /metrics: labelled by route template, with what was made, scored, waited for and failed."""

import math
import threading

import grpc

from serving.apis import ModelVersionStatus, PredictRequest
from serving.contract import GENERATOR
from tests.api.misbehaving import MisbehavingServer, failing, honest
from tests.api.processes import GatewayClient


def test_requests_are_counted_by_route_template(http: GatewayClient) -> None:
    grown = http.growth()
    for seed in range(5):
        http.get(f"/digits/{seed}.png")
    http.get("/nowhere")
    for route, status, count in (("/digits/{seed}.png", "200", 5), ("none", "404", 1)):
        labels = {"route": route, "method": "GET", "status": status}
        name = "http_requests_total"
        assert grown(name, **labels) == count
    routes = {dict(labels)["route"] for _, labels in http.metrics() if "route" in dict(labels)}
    assert not any("5" in route for route in routes)


def test_images_and_scores_are_counted(http: GatewayClient) -> None:
    grown = http.growth()
    http.post("/generate", json={"seeds": list(range(300))})
    image = http.get("/digits/1.png").content
    verdict = http.post("/score", content=image, headers={"Content-Type": "image/png"}).json()["scores"][0]
    made = "images_generated_total"
    assert grown(made, version="1") == 301
    labels = {"version": "1", "verdict": verdict["verdict"]}
    scored = "scores_total"
    assert grown(scored, **labels) == 1


def test_the_models_time_is_told_from_the_gateways(
    faulty_server: MisbehavingServer, faulty_http: GatewayClient
) -> None:
    """Each second of a request is counted once: as the model's, or as the gateway's."""
    faulty_server.behaviour = honest
    grown = faulty_http.growth()
    faulty_http.post("/generate", json={"seeds": list(range(64))})
    total = grown("http_request_seconds_sum", route="/generate")
    own = grown("gateway_seconds_sum", route="/generate")
    model = grown("model_seconds_sum", model="generator", version="1")
    assert grown("model_seconds_count", model="generator", version="1") == 1
    assert own > 0
    assert model > 0
    assert own + model <= total + 1e-9


def test_batch_sizes_are_counted_by_model_and_version(http: GatewayClient) -> None:
    grown = http.growth()
    http.post("/generate", json={"seeds": list(range(300))})
    http.get("/digits/1.png?version=99")
    name = "model_batch_size"
    # In batches, or in slices if a small request has come just before.
    assert grown(f"{name}_count", model="generator", version="1") in (2, 3)
    assert grown(f"{name}_sum", model="generator", version="1") == 300
    assert grown(f"{name}_bucket", model="generator", version="1", le="64.0") in (1, 5)
    assert grown(f"{name}_count", model="generator", version="none") == 1
    assert not any(dict(labels).get("version") == "99" for _, labels in http.metrics()), "callers make no time series"


def test_calls_at_the_model_server_are_told(faulty_server: MisbehavingServer, faulty_http: GatewayClient) -> None:
    there, finish = threading.Event(), threading.Event()

    def slow(request: PredictRequest, context: grpc.ServicerContext) -> bytes:
        there.set()
        finish.wait(60)
        return honest(request, context)

    in_flight = "model_calls_in_flight"
    faulty_server.behaviour = slow
    caller = threading.Thread(target=faulty_http.get, args=("/digits/1.png",))
    caller.start()
    try:
        assert there.wait(60)
        assert faulty_http.metric(in_flight, model="generator") == 1
    finally:
        finish.set()
        caller.join()
        faulty_server.behaviour = honest
    assert faulty_http.metric(in_flight, model="generator") == 0


def test_a_newest_version_that_failed_turns_a_metric(
    faulty_server: MisbehavingServer, faulty_http: GatewayClient
) -> None:
    names = ("available", "serving_version", "newest_version", "newest_version_failed")

    def standing() -> list[float | None]:
        samples = faulty_http.metrics()
        values = [samples[f"digitgan_model_{name}", (("model", "generator"),)] for name in names]
        return [None if math.isnan(value) else value for value in values]

    available, end = ModelVersionStatus.AVAILABLE, ModelVersionStatus.END
    faulty_server.errors[2] = (15, "no graph")
    faulty_server.statuses[GENERATOR] = [(2, end), (1, available)]
    assert standing() == [1, 1, 2, 1]
    assert faulty_http.get("/healthz/ready").status_code == 200
    faulty_server.statuses[GENERATOR] = [(2, ModelVersionStatus.LOADING), (1, available)]
    assert standing() == [1, 1, 2, 0]
    faulty_server.statuses[GENERATOR] = [(3, available), (2, end), (1, end)]
    assert standing() == [1, 3, 3, 0]
    faulty_server.statuses[GENERATOR] = [(2, end), (1, end)]
    assert standing() == [0, None, 2, 1]
    del faulty_server.statuses[GENERATOR]
    assert standing() == [0, None, None, None]
    faulty_server.reset()
    assert standing() == [1, 1, 1, 0]


def test_only_the_scrape_itself_is_in_flight(http: GatewayClient) -> None:
    assert http.metric("http_requests_in_flight") == 1


def test_the_process_is_measured_too(http: GatewayClient) -> None:
    assert http.metrics()["process_resident_memory_bytes", ()] > 1e6


def test_failures_of_the_model_server_are_counted_by_code(
    faulty_server: MisbehavingServer, faulty_http: GatewayClient
) -> None:
    grown = faulty_http.growth()
    faulty_server.behaviour = failing(grpc.StatusCode.INTERNAL)
    assert faulty_http.get("/digits/1.png").status_code == 502
    faulty_server.behaviour = lambda request, context: b"garbage"
    assert faulty_http.get("/digits/1.png").status_code == 502
    for code in ("INTERNAL", "BAD_ANSWER"):
        labels = {"model": "generator", "code": code}
        name = "upstream_errors_total"
        assert grown(name, **labels) == 1
