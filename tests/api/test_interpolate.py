"""POST /interpolate: the same frames in seven formats, from end to end."""

import io
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from serving.apis import PredictRequest
from serving.interpolation import slerp
from serving.noise import noise_from_seeds
from tests.api import test_generate as generate
from tests.api.test_generate import from_json, from_npy
from tests.support.gateways import FaultyClient
from tests.support.misbehaving import honest
from tests.support.pictures import pixels_of

Pixels = NDArray[np.uint8]
FILMS = {"image/apng": "PNG", "image/webp": "WEBP", "image/gif": "GIF"}


ask = partial(generate.ask, accept="application/x-npy", path="/interpolate")


def made(http: httpx.Client, noise: NDArray[np.float32]) -> Pixels:
    return from_npy(generate.ask(http, "application/x-npy", noise=noise.tolist()))


def test_it_walks_on_the_arc_through_every_seed(http: httpx.Client) -> None:
    points = noise_from_seeds([7, 42, 1])
    shares = np.arange(4) / 4
    expected = np.concatenate([slerp(points[0], points[1], shares), slerp(points[1], points[2], shares), points[2:]])
    response = ask(http, seeds=[7, 42, 1], steps=4)
    assert np.array_equal(from_npy(response), made(http, expected))
    assert np.array_equal(from_npy(ask(http, noise=points.tolist(), steps=4)), from_npy(response))
    assert (response.headers["x-model"], response.headers["x-model-version"]) == ("generator", "3")
    assert response.headers["vary"] == "Accept"


def test_a_straight_line_is_another_way_between_the_same_ends(http: httpx.Client) -> None:
    arc, line = (from_npy(ask(http, seeds=[7, 42], steps=6, method=method)) for method in ("slerp", "lerp"))
    assert np.array_equal(arc[[0, -1]], line[[0, -1]])
    assert not np.array_equal(arc[3], line[3])
    points = noise_from_seeds([7, 42])
    assert np.array_equal(line[3], made(http, points.mean(axis=0, keepdims=True, dtype=np.float64))[0])


def test_a_loop_comes_back_without_giving_the_first_frame_twice(http: httpx.Client) -> None:
    there = from_npy(ask(http, seeds=[7, 42], steps=5))
    round_trip = from_npy(ask(http, seeds=[7, 42], steps=5, loop=True))
    assert len(round_trip) == 10
    assert np.array_equal(round_trip[:6], there)
    assert np.array_equal(round_trip[6:], from_npy(ask(http, seeds=[42, 7], steps=5))[1:-1])


def test_all_still_formats_hold_the_same_pixels(http: httpx.Client) -> None:
    body: dict[str, Any] = {"seeds": [7, 42], "steps": 8, "scale": 2}
    expected = from_npy(ask(http, **body))
    assert expected.shape == (9, 56, 56)
    answer = ask(http, accept="application/json", **body)
    assert {frozenset(image) for image in answer.json()["images"]} == {frozenset({"png"})}
    assert np.array_equal(from_json(answer), expected)
    with zipfile.ZipFile(io.BytesIO(ask(http, accept="application/zip", **body).content)) as archive:
        assert np.array_equal(np.stack([pixels_of(archive.read(name)) for name in archive.namelist()]), expected)
    sheet = pixels_of(ask(http, accept="image/png", **body).content)
    assert np.array_equal(sheet[4:60, 4:60], expected[0])


def test_the_path_of_4096_seeds_does_not_block_the_event_loop(faulty: FaultyClient) -> None:
    """Other requests are answered before the first call for its digits."""
    called = threading.Event()

    def first_call(request: PredictRequest, context: grpc.ServicerContext) -> bytes:
        called.set()
        return honest(request, context)

    faulty.server.behaviour = first_call
    answered = 0
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(faulty.post, "/interpolate", json={"seeds": list(range(4096)), "steps": 1})
        while not called.is_set() and not asked.done():
            answered += faulty.metric("http_requests_in_flight") == 2  # this one and the path
    assert called.is_set(), asked.result().text
    assert answered > 3


@pytest.mark.parametrize("accept", FILMS)
def test_a_film_holds_the_same_pixels_and_repeats(http: httpx.Client, accept: str) -> None:
    body: dict[str, Any] = {"seeds": [7, 42], "steps": 8, "loop": True, "frame_ms": 120, "scale": 2}
    expected = from_npy(ask(http, **body))
    response = ask(http, accept=accept, **body)
    assert response.headers["content-type"] == accept
    shown, durations = [], []
    with Image.open(io.BytesIO(response.content)) as film:
        assert film.format == FILMS[accept]
        assert film.info["loop"] == 0
        for frame in range(film.n_frames):  # type: ignore[attr-defined]
            film.seek(frame)
            film.load()
            shown.append(np.asarray(film.convert("L")))
            durations.append(film.info["duration"])
    assert np.array_equal(np.stack(shown), expected)
    assert durations == [120] * 16
