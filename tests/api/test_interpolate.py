"""POST /interpolate: the same frames in seven formats, from end to end."""

import io
import zipfile
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from serving.interpolation import slerp
from serving.noise import noise_from_seeds
from tests.api.problem import assert_problem
from tests.api.test_generate import from_json, from_npy
from tests.support.pictures import pixels_of

Pixels = NDArray[np.uint8]
FILMS = {"image/apng": "PNG", "image/webp": "WEBP", "image/gif": "GIF"}


def ask(http: httpx.Client, accept: str = "application/x-npy", **body: Any) -> httpx.Response:
    response = http.post("/interpolate", json=body, headers={"Accept": accept})
    assert response.status_code == 200, response.text
    return response


def made(http: httpx.Client, noise: NDArray[np.float32]) -> Pixels:
    body = {"noise": noise.tolist()}
    return from_npy(http.post("/generate", json=body, headers={"Accept": "application/x-npy"}))


def test_it_walks_on_the_arc_through_every_seed(http: httpx.Client) -> None:
    points = noise_from_seeds([7, 42, 1])
    shares = np.arange(4) / 4
    expected = np.concatenate([slerp(points[0], points[1], shares), slerp(points[1], points[2], shares), points[2:]])
    response = ask(http, seeds=[7, 42, 1], steps=4)
    assert np.array_equal(from_npy(response), made(http, expected))
    assert np.array_equal(from_npy(ask(http, noise=points.tolist(), steps=4)), from_npy(response))
    assert (response.headers["x-model"], response.headers["x-model-version"]) == ("generator", "1")
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
    answer = ask(http, "application/json", **body)
    assert {frozenset(image) for image in answer.json()["images"]} == {frozenset({"png"})}
    assert np.array_equal(from_json(answer), expected)
    with zipfile.ZipFile(io.BytesIO(ask(http, "application/zip", **body).content)) as archive:
        assert np.array_equal(np.stack([pixels_of(archive.read(name)) for name in archive.namelist()]), expected)
    sheet = pixels_of(ask(http, "image/png", **body).content)
    assert np.array_equal(sheet[4:60, 4:60], expected[0])


@pytest.mark.parametrize("accept", FILMS)
def test_a_film_holds_the_same_pixels_and_repeats(http: httpx.Client, accept: str) -> None:
    body: dict[str, Any] = {"seeds": [7, 42], "steps": 8, "loop": True, "frame_ms": 120, "scale": 2}
    expected = from_npy(ask(http, **body))
    response = ask(http, accept, **body)
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


def test_more_frames_than_a_batch_come_in_order(http: httpx.Client) -> None:
    frames = from_npy(ask(http, seeds=[1, 2, 3], steps=200))
    assert len(frames) == 401
    assert np.array_equal(frames[200:], from_npy(ask(http, seeds=[2, 3], steps=200)))


@pytest.mark.parametrize(
    ("body", "places"),
    [
        ({}, [""]),
        ({"seeds": [1]}, ["/seeds"]),
        ({"seeds": [1, 2], "noise": [[0] * 100] * 2}, ["/seeds", "/noise"]),
        ({"seeds": [1, -2]}, ["/seeds/1"]),
        ({"noise": [[0] * 100, [0] * 99]}, ["/noise/1"]),
        ({"seeds": [1, 2], "steps": 0}, ["/steps"]),
        ({"seeds": [1, 2], "steps": 1001}, ["/steps"]),
        ({"seeds": [1, 2], "method": "straight"}, ["/method"]),
        ({"seeds": [1, 2], "loop": 1}, ["/loop"]),
        ({"seeds": [1, 2], "frame_ms": 10}, ["/frame_ms"]),
        ({"seeds": [1, 2], "count": 2}, ["/count"]),
        ({"seeds": list(range(10)), "steps": 1000}, ["/seeds", "/steps"]),
        ({"seeds": [1, 2], "steps": 1000, "scale": 32}, ["/scale", "/steps"]),
    ],
)
def test_wrong_values_are_named(http: httpx.Client, body: Any, places: list[str]) -> None:
    assert_problem(http.post("/interpolate", json=body), "invalid-request", *places)


def test_unknown_versions_formats_and_bodies_are_refused(http: httpx.Client) -> None:
    body = {"seeds": [1, 2]}
    assert_problem(http.post("/interpolate", json=body | {"version": 99}), "version-not-found")
    assert_problem(http.post("/interpolate", json=body, headers={"Accept": "video/mp4"}), "not-acceptable")
    assert_problem(http.post("/interpolate", content=b"seeds"), "unsupported-media-type")
