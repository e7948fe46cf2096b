"""A model that is swapped in the middle of an answer: the successor makes all of it, and no client gets a 404."""

import base64
import threading
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pytest

from serving.apis import ModelVersionStatus, PredictRequest
from serving.contract import CLASSIFIER, DISCRIMINATOR, GENERATOR, IMAGES, LOGITS, MODELS
from tests.api.test_wrong_input import png
from tests.support import gateways
from tests.support.gateways import GatewayClient, noise_input
from tests.support.misbehaving import MisbehavingServer, answer
from tests.support.problems import assert_problem

NPY = {"Accept": "application/x-npy"}
SCORED = {"images": [base64.b64encode(png()).decode()] * 300, "labels": True}
DATASET = {"count": 1000, "confidence_floor": 0, "logit_floor": 0, "balance": "natural"}
"""The discriminator's first answer is below the floor: so nothing is sent yet when the second block is asked for."""

CASES = [
    ("/generate", {"count": 300}, {}, GENERATOR),
    ("/generate", {"count": 300, "labels": True}, {}, GENERATOR),
    ("/interpolate", {"seeds": [1, 2], "steps": 300}, {}, GENERATOR),
    ("/dataset", DATASET, NPY, GENERATOR),
    ("/dataset", DATASET, NPY, CLASSIFIER),
    ("/dataset", DATASET, NPY, DISCRIMINATOR),
    ("/score", SCORED, {}, DISCRIMINATOR),
    ("/score", SCORED, {}, CLASSIFIER),
    ("/v2/models/generator/infer", noise_input(300), {}, GENERATOR),
]


class Swap:
    """Withdraws the version of ``model`` after each of its first ``swaps`` answers, and publishes the next one."""

    def __init__(self, server: MisbehavingServer, model: str, swaps: int = 1) -> None:
        self.model, self.swaps, self.version = model, swaps, 1
        self.server = server
        self.scored = 0
        self._lock = threading.Lock()
        server.statuses |= {name: [(1, ModelVersionStatus.AVAILABLE)] for name in MODELS}
        server.behaviour = self

    def __call__(self, request: PredictRequest, context: grpc.ServicerContext) -> bytes:
        spec = request.model_spec
        changes: dict[str, Any] = {}
        if spec.name == DISCRIMINATOR:
            rows = request.inputs[IMAGES].tensor_shape.dim[0].size
            changes = {LOGITS: np.full(rows, 1 if self.scored else -1, np.float32)}
            self.scored += 1
        if spec.name != self.model:
            return answer(request, changes)
        with self._lock:
            if spec.HasField("version") and spec.version.value != self.version:
                context.abort(grpc.StatusCode.NOT_FOUND, "Servable not found")
            version = self.version
            if version <= self.swaps:
                self.version += 1
                self.server.statuses[self.model] = [(self.version, ModelVersionStatus.AVAILABLE)]
        return answer(request, changes, version=version)


@pytest.fixture(scope="module")
def http(server: MisbehavingServer) -> Iterator[GatewayClient]:
    with gateways.serving(server.target, max_score_images=1000) as client:
        yield client


@pytest.mark.parametrize(("path", "body", "headers", "model"), CASES)
def test_the_successor_makes_the_whole_answer(
    http: GatewayClient, server: MisbehavingServer, path: str, body: dict[str, Any], headers: dict[str, str], model: str
) -> None:
    Swap(server, model)
    response = http.post(path, json=body, headers=headers)
    assert response.status_code == 200, response.text
    if model != CLASSIFIER and path != "/score":
        assert response.headers[f"x-{model if model == DISCRIMINATOR else 'model'}-version"] == "2"


def test_a_model_that_is_swapped_again_and_again_is_unavailable(http: GatewayClient, server: MisbehavingServer) -> None:
    Swap(server, GENERATOR, swaps=9)
    assert_problem(http.post("/generate", json={"count": 300}), "model-not-served")


def test_a_version_that_the_request_names_has_no_successor(http: GatewayClient, server: MisbehavingServer) -> None:
    Swap(server, GENERATOR)
    assert_problem(http.post("/generate", json={"count": 300, "version": 1}), "version-not-found")
