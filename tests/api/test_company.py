"""Good and bad requests at the same time, by the hundred: whoever errs, errs alone. On the real models."""

import base64
import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import grpc
import httpx
import numpy as np
import pytest

from serving.apis import PREDICT, PredictRequest, PredictResponse
from serving.contract import DISCRIMINATOR, GENERATOR, IMAGES, LOGITS, NOISE
from serving.noise import noise_from_seeds
from serving.pretrained import MODELS_DIR
from serving.tf_serving.tensors import to_array, to_proto
from tests.api import processes
from tests.api.problem import assert_problem
from tests.support.processes import ServerProcess

CLIENTS: Final = 16
ROUNDS: Final = 25

BAD_BODIES: Final[list[Any]] = [
    {"seeds": [1.5]},
    {"seeds": [-1, 7]},
    {"noise": [[0.0] * 99]},
    {"noise": [[0.0] * 100, [1e39] * 100]},
    {"noise": [[[0.0]] * 100]},
    {"count": "7"},
    [],
]
BAD_TENSORS: Final = [
    (GENERATOR, NOISE, np.zeros((2, 99), np.float32)),
    (GENERATOR, NOISE, np.zeros((3, 101), np.float32)),
    (GENERATOR, NOISE, np.zeros((1, 10, 10), np.float32)),
    (GENERATOR, NOISE, np.zeros((2, 100), np.float64)),
    (GENERATOR, NOISE, np.zeros((2, 100), np.int32)),
    (GENERATOR, NOISE, np.float32(1) * np.ones(())),
    (GENERATOR, "nose", np.zeros((2, 100), np.float32)),
    (DISCRIMINATOR, IMAGES, np.zeros((2, 26, 20, 1), np.uint8)),
    (DISCRIMINATOR, IMAGES, np.zeros((2, 28, 28), np.uint8)),
    (DISCRIMINATOR, IMAGES, np.zeros((2, 28, 28, 3), np.uint8)),
    (DISCRIMINATOR, IMAGES, np.zeros((2, 28, 28, 1), np.float32)),
]


@pytest.fixture(scope="module")
def embedded(sockets: Path) -> Iterator[tuple[str, str]]:
    """The target of an embedded model server, and the URL of a gateway in front of it.

    In TensorFlow Serving, a wrong tensor fails its whole batch, and may end the process (docs/security.md).
    """
    with (
        processes.model_server(MODELS_DIR, sockets / "embedded.sock") as server,
        processes.gateway(server.target) as gateway,
    ):
        yield server.target, processes.url_of(gateway)


def first_digits(http: httpx.Client) -> list[bytes]:
    """The first 64 seeds' digits, each from a request of its own."""
    return [http.get(f"/digits/{seed}.png").content for seed in range(64)]


def interleaved(good: Callable[[int], None], bad: Callable[[int], None]) -> None:
    """Does ``good`` ROUNDS times in each of CLIENTS threads, and ``bad`` in as many at the same time."""
    with ThreadPoolExecutor(2 * CLIENTS) as pool:
        asked = [
            pool.submit(ask, number) for number in range(ROUNDS * CLIENTS) for ask in random.sample((good, bad), 2)
        ]
        for one in asked:
            one.result()


def ask_for_digits(http: httpx.Client, digits: list[bytes], number: int) -> None:
    """Asks for some digits, and compares them with those that were alone."""
    seeds = [(number + step) % len(digits) for step in range(1 + number % 5)]
    answer = http.post("/generate", json={"seeds": seeds})
    assert answer.status_code == 200, answer.text
    pngs = [base64.b64decode(image["png"]) for image in answer.json()["images"]]
    assert pngs == [digits[seed] for seed in seeds]


def test_bad_requests_to_the_gateway_fail_alone(http: httpx.Client, gateway: ServerProcess) -> None:
    digits = first_digits(http)

    def good(number: int) -> None:
        if number % 4:
            ask_for_digits(client, digits, number)
        else:
            images = [("images", digits[number % len(digits)])] * (1 + number % 3)
            assert len(client.post("/score", files=images).json()["scores"]) == len(images)

    def bad(number: int) -> None:
        if number % 3:
            answer = client.post("/generate", json=BAD_BODIES[number % len(BAD_BODIES)])
        else:
            answer = client.post("/score", files=[("images", digits[0]), ("images", digits[1][: 20 + number % 60])])
        places = [error["pointer"] for error in answer.json()["errors"]]
        assert_problem(answer, "invalid-request", *places)

    limits = httpx.Limits(max_connections=2 * CLIENTS)
    with httpx.Client(base_url=processes.url_of(gateway), timeout=60, limits=limits) as client:
        interleaved(good, bad)


def test_bad_tensors_at_the_embedded_model_server_fail_alone(embedded: tuple[str, str]) -> None:
    """Wrong shapes and dtypes straight to it, while good calls come from the gateway and beside it."""
    target, url = embedded
    rows = [noise_from_seeds([seed]) for seed in range(8)]
    expected: dict[int, bytes] = {}

    with grpc.insecure_channel(target) as channel:
        predict = channel.unary_unary(PREDICT, PredictRequest.SerializeToString, PredictResponse.FromString)

        def ask(model: str, name: str, tensor: Any) -> PredictResponse:
            request = PredictRequest(model_spec={"name": model}, inputs={name: to_proto(np.asarray(tensor))})
            answer: PredictResponse = predict(request, timeout=60)
            return answer

        for seed, noise in enumerate(rows):
            expected[seed] = to_array(ask(GENERATOR, NOISE, noise).outputs[IMAGES]).tobytes()

        def good(number: int) -> None:
            if number % 2:
                ask_for_digits(client, digits, number)
                return
            seed = number % len(rows)
            images = to_array(ask(GENERATOR, NOISE, rows[seed]).outputs[IMAGES])
            assert images.tobytes() == expected[seed]
            logits = to_array(ask(DISCRIMINATOR, IMAGES, images).outputs[LOGITS])
            assert np.isfinite(logits).all()

        def bad(number: int) -> None:
            with pytest.raises(grpc.RpcError) as caught:
                ask(*BAD_TENSORS[number % len(BAD_TENSORS)])
            assert isinstance(caught.value, grpc.Call)
            assert caught.value.code() in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.FAILED_PRECONDITION)

        with httpx.Client(base_url=url, timeout=60) as client:
            digits = first_digits(client)
            interleaved(good, bad)
