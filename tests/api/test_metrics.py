"""GET /metrics: labelled by route template, with what was made, scored, waited for and failed."""

import math
import threading

import grpc
import httpx
from prometheus_client.parser import text_string_to_metric_families

from serving.apis import ModelVersionStatus, PredictRequest
from serving.contract import GENERATOR
from tests.api.misbehaving import MisbehavingServer, failing, honest

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def read(http: httpx.Client) -> Samples:
    response = http.get("/metrics")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/plain")
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }


def value(samples: Samples, name: str, **labels: str) -> float:
    return samples.get((name, tuple(sorted(labels.items()))), 0.0)


def test_requests_are_counted_by_route_template(http: httpx.Client) -> None:
    before = read(http)
    for seed in range(5):
        http.get(f"/digits/{seed}.png")
    http.get("/nowhere")
    after = read(http)
    for route, status, count in (("/digits/{seed}.png", "200", 5), ("none", "404", 1)):
        labels = {"route": route, "method": "GET", "status": status}
        name = "digitgan_http_requests_total"
        assert value(after, name, **labels) - value(before, name, **labels) == count
    routes = {dict(labels)["route"] for _, labels in after if "route" in dict(labels)}
    assert not any("5" in route for route in routes)


def test_images_and_scores_are_counted(http: httpx.Client) -> None:
    before = read(http)
    http.post("/generate", json={"seeds": list(range(300))})
    image = http.get("/digits/1.png").content
    verdict = http.post("/score", content=image, headers={"Content-Type": "image/png"}).json()["scores"][0]
    after = read(http)
    made = "digitgan_images_generated_total"
    assert value(after, made, version="1") - value(before, made, version="1") == 301
    labels = {"version": "1", "verdict": verdict["verdict"]}
    scored = "digitgan_scores_total"
    assert value(after, scored, **labels) - value(before, scored, **labels) == 1


def test_the_models_time_is_told_from_the_gateways(faulty_server: MisbehavingServer, faulty_http: httpx.Client) -> None:
    """Each second of a request is counted once: as the model's, or as the gateway's."""
    faulty_server.behaviour = honest
    before = read(faulty_http)
    faulty_http.post("/generate", json={"seeds": list(range(64))})
    after = read(faulty_http)

    def grown(name: str, **labels: str) -> float:
        return value(after, name, **labels) - value(before, name, **labels)

    total = grown("digitgan_http_request_seconds_sum", route="/generate")
    own = grown("digitgan_gateway_seconds_sum", route="/generate")
    model = grown("digitgan_model_seconds_sum", model="generator", version="1")
    assert grown("digitgan_model_seconds_count", model="generator", version="1") == 1
    assert own > 0
    assert model > 0
    assert own + model <= total + 1e-9


def test_batch_sizes_are_counted_by_model_and_version(http: httpx.Client) -> None:
    before = read(http)
    http.post("/generate", json={"seeds": list(range(300))})
    http.get("/digits/1.png?version=99")
    after = read(http)

    def grown(name: str, **labels: str) -> float:
        return value(after, name, **labels) - value(before, name, **labels)

    name = "digitgan_model_batch_size"
    # In batches, or in slices if a small request has come just before.
    assert grown(f"{name}_count", model="generator", version="1") in (2, 3)
    assert grown(f"{name}_sum", model="generator", version="1") == 300
    assert grown(f"{name}_bucket", model="generator", version="1", le="64.0") in (1, 5)
    assert grown(f"{name}_count", model="generator", version="none") == 1
    assert not any(dict(labels).get("version") == "99" for _, labels in after), "callers make no time series"


def test_calls_at_the_model_server_are_told(faulty_server: MisbehavingServer, faulty_http: httpx.Client) -> None:
    there, finish = threading.Event(), threading.Event()

    def slow(request: PredictRequest, context: grpc.ServicerContext) -> bytes:
        there.set()
        finish.wait(60)
        return honest(request, context)

    in_flight = "digitgan_model_calls_in_flight"
    faulty_server.behaviour = slow
    caller = threading.Thread(target=faulty_http.get, args=("/digits/1.png",))
    caller.start()
    try:
        assert there.wait(60)
        assert value(read(faulty_http), in_flight, model="generator") == 1
    finally:
        finish.set()
        caller.join()
        faulty_server.behaviour = honest
    assert value(read(faulty_http), in_flight, model="generator") == 0


def test_a_newest_version_that_failed_turns_a_metric(
    faulty_server: MisbehavingServer, faulty_http: httpx.Client
) -> None:
    names = ("available", "serving_version", "newest_version", "newest_version_failed")

    def standing() -> list[float | None]:
        samples = read(faulty_http)
        values = [samples[f"digitgan_model_{name}", (("model", "generator"),)] for name in names]
        return [None if math.isnan(value) else value for value in values]

    available, end = ModelVersionStatus.AVAILABLE, ModelVersionStatus.END
    healthy = faulty_server.statuses[GENERATOR]
    try:
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
    finally:
        faulty_server.errors.clear()
        faulty_server.statuses[GENERATOR] = healthy
    assert standing() == [1, 1, 1, 0]


def test_only_the_scrape_itself_is_in_flight(http: httpx.Client) -> None:
    assert value(read(http), "digitgan_http_requests_in_flight") == 1


def test_the_process_is_measured_too(http: httpx.Client) -> None:
    assert value(read(http), "process_resident_memory_bytes") > 1e6


def test_failures_of_the_model_server_are_counted_by_code(
    faulty_server: MisbehavingServer, faulty_http: httpx.Client
) -> None:
    before = read(faulty_http)
    faulty_server.behaviour = failing(grpc.StatusCode.INTERNAL)
    try:
        assert faulty_http.get("/digits/1.png").status_code == 502
        faulty_server.behaviour = lambda request, context: b"garbage"
        assert faulty_http.get("/digits/1.png").status_code == 502
    finally:
        faulty_server.behaviour = honest
    after = read(faulty_http)
    for code in ("INTERNAL", "BAD_ANSWER"):
        labels = {"model": "generator", "code": code}
        name = "digitgan_upstream_errors_total"
        assert value(after, name, **labels) - value(before, name, **labels) == 1
