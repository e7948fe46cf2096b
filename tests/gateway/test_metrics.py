"""GET /metrics: labelled by route template, with what was made, scored, waited for and failed."""

import grpc
import httpx
from prometheus_client.parser import text_string_to_metric_families

from tests.gateway.misbehaving import MisbehavingServer, failing, honest

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


def test_the_models_time_is_told_from_the_gateways(http: httpx.Client) -> None:
    before = read(http)
    http.post("/generate", json={"seeds": list(range(64))})
    after = read(http)

    def grown(name: str, **labels: str) -> float:
        return value(after, name, **labels) - value(before, name, **labels)

    total = grown("digitgan_http_request_seconds_sum", route="/generate")
    own = grown("digitgan_gateway_seconds_sum", route="/generate")
    model = grown("digitgan_model_seconds_sum", model="generator")
    assert grown("digitgan_model_seconds_count", model="generator") == 1
    assert 0 < own < total
    assert abs(total - own - model) < 0.001


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
