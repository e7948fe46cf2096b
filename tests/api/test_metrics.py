"""GET /metrics: labelled by route template, with what was made, scored, waited for and failed."""

import math
from functools import partial

from api.oip.messages import HEADER_LENGTH
from serving.apis import ModelVersionStatus
from serving.contract import GENERATOR
from serving.noise import noise_from_seeds
from tests.support.gateways import FaultyClient, GatewayClient
from tests.support.processes import wait_until


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
    assert own > 0
    assert model > 0
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
