"""A version N+1 that is broken: N serves on, readiness stays true, the metric to alert on rises, and /models says why.
The repaired model takes over as N+2.
"""

import re
import shutil
from pathlib import Path

from serving.contract import GENERATOR, MODEL_CARD, MODELS
from serving.pretrained import MODELS_DIR
from tests.serving.model_server import saved_models
from tests.support import gateways
from tests.support.waiting import wait_until


def publish(base: Path, version: int, *, broken: bool) -> None:
    """Publishes the package's generator as a version; broken, it has no card that the embedded server compares."""
    beside = base / GENERATOR / f"{version}.partial"
    shutil.copytree(MODELS_DIR / GENERATOR / "1", beside)
    if broken:
        saved_models.garble_graph(beside)
        (beside / MODEL_CARD).unlink()
    beside.rename(base / GENERATOR / str(version))


def test_a_broken_version_is_reported_while_the_one_before_serves_and_the_repaired_one_takes_over(
    tmp_path: Path, sockets: Path, program: str
) -> None:
    for name in MODELS:
        shutil.copytree(MODELS_DIR / name / "1", tmp_path / name / "1")
    with (
        gateways.model_server(tmp_path, sockets / "broken.sock", program) as server,
        gateways.serving(server.target, models_dir=tmp_path, ready_timeout_s=30) as http,
    ):

        def gauge(name: str) -> float:
            return http.metric(f"model_{name}", model=GENERATOR)

        def serving() -> int:
            version: int = http.post("/generate", json={"seeds": [7]}).raise_for_status().json()["version"]
            return version

        def shown() -> dict[str, object]:
            found: dict[str, object]
            (found,) = [one for one in http.get("/models").json()["models"] if one["name"] == GENERATOR]
            return found

        assert gauge("newest_version_failed") == 0
        publish(tmp_path, 2, broken=True)
        wait_until(lambda: gauge("newest_version_failed") == 1, seconds=300)
        assert http.get("/healthz/ready").status_code == 200
        assert serving() == gauge("serving_version") == shown()["serving"] == 1
        assert gauge("newest_version") == 2
        assert shown()["status"] == "degraded"
        assert re.match(r"version 2: DATA_LOSS.*version 1 serves on$", str(shown()["detail"]), re.DOTALL)

        # TensorFlow Serving does not try the failed number again.
        publish(tmp_path, 3, broken=False)
        wait_until(lambda: serving() == 3, seconds=300)
        assert gauge("newest_version_failed") == 0
        assert http.get("/healthz/ready").status_code == 200
        assert (shown()["status"], shown()["detail"]) == ("available", None)
