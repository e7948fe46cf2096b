"""A version N+1 that is broken: N serves on, readiness stays true, the metric to alert on rises, and /models says why.
The repaired model takes over as N+2.
"""

import re
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from serving.contract import GENERATOR, MODEL_CARD, MODELS
from serving.pretrained import MODELS_DIR
from tests.api import processes
from tests.serving.model_server import saved_models

DEADLINE_S = 300.0


def fail_warmup(version: Path) -> None:
    saved_models.write_warmup(version, [{"wrong": np.zeros((1, 100), np.float32)}])


def cut_graph(version: Path) -> None:
    (version / "saved_model.pb").write_bytes(b"other")


BREAKAGES: dict[str, tuple[Callable[[Path], None], str, bool]] = {
    "short graph": (cut_graph, "(DATA_LOSS|OUT_OF_RANGE)", True),
    "bad graph": (saved_models.garble_graph, "DATA_LOSS", False),
    "failing warm-up": (fail_warmup, "INVALID_ARGUMENT", False),
}
"""How to break it, the status it ends with, and whether it has its card, which the embedded server compares first."""


@dataclass
class Service:
    base: Path
    http: httpx.Client
    versions: Iterator[int]

    def publish(self, version: int, breakage: Callable[[Path], None], *, card: bool) -> None:
        """Publishes the package's generator as a version, broken; with or without its card."""
        beside = self.base / f"{version}.partial"
        shutil.copytree(MODELS_DIR / GENERATOR / "1", beside)
        breakage(beside)
        if not card:
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
        processes.model_server(base, sockets / "broken.sock", program) as server,
        processes.gateway(server.target, models_dir=base, ready_timeout_s=30) as gateway,
        httpx.Client(base_url=processes.url_of(gateway), timeout=60) as http,
    ):
        yield Service(base / GENERATOR, http, iter(range(2, 100)))


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, "the condition never came true"
        time.sleep(0.05)


@pytest.mark.parametrize("breakage", BREAKAGES)
def test_a_broken_version_is_told_while_the_one_before_serves_and_the_repaired_one_takes_over(
    service: Service, breakage: str
) -> None:
    break_it, code, card = BREAKAGES[breakage]
    version, before = next(service.versions), service.serving()
    assert service.gauge("digitgan_model_newest_version_failed") == 0

    service.publish(version, break_it, card=card)
    wait_until(lambda: service.gauge("digitgan_model_newest_version_failed") == 1)
    assert service.http.get("/healthz/ready").status_code == 200
    assert service.serving() == before
    assert service.gauge("digitgan_model_serving_version") == before
    assert service.gauge("digitgan_model_newest_version") == version
    told = service.generator()
    assert (told["status"], told["serving"]) == ("degraded", before)
    assert re.match(rf"version {version}: {code}", str(told["detail"]))
    assert str(told["detail"]).endswith(f"version {before} serves on")

    # TensorFlow Serving does not try the failed number again.
    version = next(service.versions)
    service.publish(version, lambda _: None, card=True)
    wait_until(lambda: service.serving() == version)
    assert service.gauge("digitgan_model_newest_version_failed") == 0
    assert service.http.get("/healthz/ready").status_code == 200
    assert (service.generator()["status"], service.generator()["detail"]) == ("available", None)
