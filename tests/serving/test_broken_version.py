"""A version N+1 that is broken: N serves on, readiness stays true, the metric to alert on rises, and /models says why.
The repaired model takes over as N+2.
"""

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from serving.contract import GENERATOR, MODEL_CARD, MODELS
from serving.pretrained import MODELS_DIR
from tests.serving.model_server import saved_models
from tests.support import gateways
from tests.support.waiting import wait_until


@dataclass
class Service:
    base: Path
    http: httpx.Client

    def publish(self, version: int, *, broken: bool) -> None:
        """Publishes the package's generator as a version; broken, it has no card that the embedded server compares."""
        beside = self.base / f"{version}.partial"
        shutil.copytree(MODELS_DIR / GENERATOR / "1", beside)
        if broken:
            saved_models.garble_graph(beside)
            (beside / MODEL_CARD).unlink()
        beside.rename(self.base / str(version))

    def gauge(self, name: str) -> float:
        families = text_string_to_metric_families(self.http.get("/metrics").text)
        samples = [sample for family in families for sample in family.samples if sample.name == name]
        (found,) = [sample.value for sample in samples if sample.labels["model"] == GENERATOR]
        return found

    def generator(self) -> dict[str, object]:
        (found,) = [one for one in self.http.get("/models").json()["models"] if one["name"] == GENERATOR]
        assert isinstance(found, dict)
        return found

    def serving(self) -> int:
        """The version that answers, which must be the one that /models says."""
        answer = self.http.post("/generate", json={"seeds": [7]})
        assert answer.status_code == 200, answer.text
        version = answer.json()["version"]
        assert isinstance(version, int)
        return version


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, sockets: Path, program: str) -> Iterator[Service]:
    base = tmp_path_factory.mktemp("models")
    for name in MODELS:
        shutil.copytree(MODELS_DIR / name / "1", base / name / "1")
    with (
        gateways.model_server(base, sockets / "broken.sock", program) as server,
        gateways.gateway(server.target, models_dir=base, ready_timeout_s=30) as gateway,
        httpx.Client(base_url=gateway.url, timeout=60) as http,
    ):
        yield Service(base / GENERATOR, http)


def test_a_broken_version_is_reported_while_the_one_before_serves_and_the_repaired_one_takes_over(
    service: Service,
) -> None:
    assert service.gauge("digitgan_model_newest_version_failed") == 0

    service.publish(2, broken=True)
    wait_until(lambda: service.gauge("digitgan_model_newest_version_failed") == 1, seconds=300)
    assert service.http.get("/healthz/ready").status_code == 200
    assert service.serving() == 1
    assert service.gauge("digitgan_model_serving_version") == 1
    assert service.gauge("digitgan_model_newest_version") == 2
    shown = service.generator()
    assert (shown["status"], shown["serving"]) == ("degraded", 1)
    assert re.match(r"version 2: DATA_LOSS", str(shown["detail"]))
    assert str(shown["detail"]).endswith("version 1 serves on")

    # TensorFlow Serving does not try the failed number again.
    service.publish(3, broken=False)
    wait_until(lambda: service.serving() == 3, seconds=300)
    assert service.gauge("digitgan_model_newest_version_failed") == 0
    assert service.http.get("/healthz/ready").status_code == 200
    assert (service.generator()["status"], service.generator()["detail"]) == ("available", None)
