"""POST /generate and /interpolate: the same digits in all formats, from seeds and from noise."""

import base64
import io
import zipfile
from functools import partial
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from api.formats.streams import ZipStream
from serving.contract import MAX_SEED
from serving.interpolation import slerp
from serving.noise import noise_from_seeds
from tests.support.pictures import Pixels, pixels_of

FORMATS = ["application/json", "image/png", "application/zip", "application/x-npy"]
FILMS = {"image/apng": "PNG", "image/webp": "WEBP", "image/gif": "GIF"}
SEEDS = [7, 0, 2**32 + 1, MAX_SEED, 7]


def ask(
    http: httpx.Client, accept: str = "application/json", *, path: str = "/generate", **body: Any
) -> httpx.Response:
    response = http.post(path, json=body, headers={"Accept": accept})
    assert response.status_code == 200, response.text
    return response


def pixels_in(response: httpx.Response) -> Pixels:
    """The images [N, H, W] in an answer, unless it is a sheet."""
    match response.headers["content-type"]:
        case "application/json":
            pngs = [base64.b64decode(one["png"]) for one in response.json()["images"]]
        case "application/zip":
            with zipfile.ZipFile(io.BytesIO(response.content)) as archive:
                pngs = [archive.read(name) for name in archive.namelist() if name.endswith(".png")]
        case _:
            pixels: Pixels = np.load(io.BytesIO(response.content))
            assert pixels.dtype == np.uint8
            return pixels
    return np.stack([pixels_of(png) for png in pngs])


def test_json_and_zip_name_the_seeds_in_the_order_asked_for(http: httpx.Client) -> None:
    response = ask(http, seeds=SEEDS, version=None, labels=False, curated=False, digit=None)
    answer = response.json()
    assert (answer["model"], answer["version"]) == ("generator", 3)
    assert [image["seed"] for image in answer["images"]] == SEEDS
    pixels = pixels_in(response)
    assert pixels.shape == (5, 28, 28)
    assert np.array_equal(pixels[0], pixels[4])
    assert not np.array_equal(pixels[0], pixels[1])
    with zipfile.ZipFile(io.BytesIO(ask(http, "application/zip", seeds=SEEDS).content)) as archive:
        assert archive.namelist() == [f"{place}-{seed}.png" for place, seed in enumerate(SEEDS)]


@pytest.mark.parametrize(
    ("path", "fields", "body"),
    [
        ("/generate", {"seed", "png"}, {"seeds": SEEDS, "scale": 2}),
        ("/interpolate", {"png"}, {"seeds": [7, 42], "steps": 8, "scale": 2}),
    ],
)
def test_formats_hold_the_same_pixels(http: httpx.Client, path: str, fields: set[str], body: dict[str, Any]) -> None:
    answers = {accept: ask(http, accept, path=path, **body) for accept in FORMATS}
    expected = pixels_in(answers["application/json"])
    assert expected.shape[1:] == (56, 56)
    assert all(set(image) == fields for image in answers["application/json"].json()["images"])
    for accept, response in answers.items():
        assert response.headers["content-type"] == accept
        assert (response.headers["x-model"], response.headers["x-model-version"]) == ("generator", "3")
        assert response.headers["vary"] == "Accept"
        if accept != "image/png":
            assert np.array_equal(pixels_in(response), expected)
    assert np.array_equal(pixels_of(answers["image/png"].content)[4:60, 4:60], expected[0])
    with zipfile.ZipFile(io.BytesIO(answers["application/zip"].content)) as archive:
        assert archive.testzip() is None
        info = archive.infolist()[0]
        assert (info.external_attr >> 16, info.compress_type) == (0o100644, zipfile.ZIP_STORED)
        assert info.date_time == (1980, 1, 1, 0, 0, 0), "the same bytes each time"


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        ("", "application/json"),
        ("*/*", "application/json"),
        ("image/*", "image/png"),
        ("*/*, image/png", "image/png"),
        ("application/zip, image/png", "image/png"),
        ("image/png;q=0.5, application/zip", "application/zip"),
        ("image/png ; q=0.500 , application/zip ; q=0.501", "application/zip"),
        ("image/png;Q=0.1, application/zip;Q=0.2", "application/zip"),
        ("*/*;q=0.9, image/*;q=0.8", "application/json"),
        ("application/zip;q=0, application/json;q=0, */*", "image/png"),
        ("application/json;q=0.2, */*;q=0.9", "image/png"),
        ("text/html, application/xhtml+xml, image/avif, image/webp, image/png, */*;q=0.8", "image/png"),
        ("image/png;level=1;q=0.9, application/zip;q=0.8", "image/png"),
        ("rubbish, ,image/png,", "image/png"),
        ("image/png;q=rubbish, application/zip;q=0.1", "application/zip"),
        ("image/png;q=1.5, application/zip;q=0.1", "application/zip"),
        ("image/png;q=nan, application/zip;q=0.1", "application/zip"),
        ("text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2", "application/json"),  # Java 8
        ("image/png; q = .5, application/zip ; q=1.", "application/zip"),
    ],
)
def test_the_preferred_format_is_chosen(http: httpx.Client, accept: str, chosen: str) -> None:
    """RFC 9110, section 12.5.1: quality, specificity and exclusion; of equal ones, the first that there is."""
    assert ask(http, accept, seeds=[7]).headers["content-type"] == chosen


@pytest.mark.parametrize(
    ("count", "rows", "columns"), [(2, 1, 2), (3, 2, 2), (4, 2, 2), (7, 3, 3), (10, 3, 4), (16, 4, 4), (100, 10, 10)]
)
def test_a_sheet_is_nearly_square_and_in_reading_order(http: httpx.Client, count: int, rows: int, columns: int) -> None:
    sheet = pixels_of(ask(http, "image/png", seeds=list(range(count))).content)
    expected = np.zeros((rows * 30 + 2, columns * 30 + 2), np.uint8)
    for index, digit in enumerate(pixels_in(ask(http, "application/x-npy", seeds=list(range(count))))):
        top, left = 2 + 30 * (index // columns), 2 + 30 * (index % columns)
        expected[top : top + 28, left : left + 28] = digit
    assert np.array_equal(sheet, expected)


def test_noise_gives_the_digit_of_the_seed_that_it_came_from(http: httpx.Client) -> None:
    response = ask(http, noise=noise_from_seeds(SEEDS).tolist())
    assert all(set(image) == {"png"} for image in response.json()["images"])
    assert np.array_equal(pixels_in(response), pixels_in(ask(http, seeds=SEEDS)))


def test_whole_numbers_may_have_a_point(http: httpx.Client) -> None:
    """JSON knows one kind of number, and JSON Schema takes 7.0 for an integer."""
    with_points = ask(http, seeds=[7.0, 8], scale=2.0, version=3.0).json()
    assert with_points == ask(http, seeds=[7, 8], scale=2, version=3).json()
    assert [image["seed"] for image in with_points["images"]] == [7, 8]
    assert len(ask(http, count=2.0).json()["images"]) == 2
    assert pixels_in(ask(http, noise=[[0] * 100])).shape == (1, 28, 28)


@pytest.mark.parametrize("scale", [2, 3, 32])
def test_scale_repeats_pixels(http: httpx.Client, scale: int) -> None:
    large = pixels_in(ask(http, seeds=[1, 2])).repeat(scale, axis=1).repeat(scale, axis=2)
    for accept in ("application/json", "application/x-npy", "application/zip"):
        assert np.array_equal(pixels_in(ask(http, accept, seeds=[1, 2], scale=scale)), large)
    sheet = pixels_of(ask(http, "image/png", seeds=[1, 2], scale=scale).content)
    assert np.array_equal(sheet[2 * scale : 30 * scale, 32 * scale : 60 * scale], large[1])


def test_more_images_than_a_model_batch_come_in_order_and_do_not_depend_on_their_batch(http: httpx.Client) -> None:
    seeds = list(range(600, 0, -1))
    npy = pixels_in(ask(http, "application/x-npy", seeds=seeds))
    assert npy.shape == (600, 28, 28)
    alone = [[place] for place in (*range(32), *range(240, 272), 511, 512, 599)]
    sevens = [list(range(start, start + 7)) for start in range(0, 64, 7)]
    for batch in ([0, 255, 256, 511, 512, 599], *sevens, *alone):
        made = pixels_in(ask(http, "application/x-npy", seeds=[seeds[i] for i in batch]))
        assert np.array_equal(npy[batch], made)
    response = ask(http, seeds=seeds)
    assert [image["seed"] for image in response.json()["images"]] == seeds
    assert np.array_equal(pixels_in(response), npy)


def test_more_files_than_the_old_zip_format_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a limit of 2 in place of 65,535: the directory is then the new format's."""
    monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 2)
    stream = ZipStream()
    archive = b"".join([*(stream.add([(name, b"a")]) for name in "012"), stream.finish()])
    assert b"PK\x06\x06" in archive
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        assert opened.namelist() == ["0", "1", "2"]


walk = partial(ask, accept="application/x-npy", path="/interpolate")


def made(http: httpx.Client, noise: NDArray[np.float32]) -> Pixels:
    return pixels_in(ask(http, "application/x-npy", noise=noise.tolist()))


def test_it_walks_on_the_arc_through_every_seed(http: httpx.Client) -> None:
    points = noise_from_seeds([7, 42, 1])
    shares = np.arange(4) / 4
    expected = np.concatenate([slerp(points[0], points[1], shares), slerp(points[1], points[2], shares), points[2:]])
    response = walk(http, seeds=[7, 42, 1], steps=4)
    assert np.array_equal(pixels_in(response), made(http, expected))
    assert np.array_equal(pixels_in(walk(http, noise=points.tolist(), steps=4)), pixels_in(response))


def test_a_straight_line_is_another_way_between_the_same_ends(http: httpx.Client) -> None:
    arc, line = (pixels_in(walk(http, seeds=[7, 42], steps=6, method=method)) for method in ("slerp", "lerp"))
    assert np.array_equal(arc[[0, -1]], line[[0, -1]])
    assert not np.array_equal(arc[3], line[3])
    points = noise_from_seeds([7, 42])
    assert np.array_equal(line[3], made(http, points.mean(axis=0, keepdims=True, dtype=np.float64))[0])


def test_a_loop_comes_back_without_giving_the_first_frame_twice(http: httpx.Client) -> None:
    there = pixels_in(walk(http, seeds=[7, 42], steps=5))
    round_trip = pixels_in(walk(http, seeds=[7, 42], steps=5, loop=True))
    assert len(round_trip) == 10
    assert np.array_equal(round_trip[:6], there)
    assert np.array_equal(round_trip[6:], pixels_in(walk(http, seeds=[42, 7], steps=5))[1:-1])


@pytest.mark.parametrize("accept", FILMS)
def test_a_film_holds_the_same_pixels_and_repeats(http: httpx.Client, accept: str) -> None:
    body: dict[str, Any] = {"seeds": [7, 42], "steps": 8, "loop": True, "frame_ms": 120, "scale": 2}
    expected = pixels_in(walk(http, **body))
    response = walk(http, accept=accept, **body)
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
