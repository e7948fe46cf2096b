"""POST /generate: the same digits in four formats, from seeds, noise and seeds that the server chooses."""

import base64
import io
import zipfile
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from api.formats.streams import ZipStream
from serving.contract import MAX_SEED
from serving.noise import noise_from_seeds
from tests.support.pictures import pixels_of

Pixels = NDArray[np.uint8]
SEEDS = [7, 0, 2**32 + 1, MAX_SEED, 7]


def ask(
    http: httpx.Client, accept: str = "application/json", *, path: str = "/generate", **body: Any
) -> httpx.Response:
    response = http.post(path, json=body, headers={"Accept": accept})
    assert response.status_code == 200, response.text
    return response


def from_json(response: httpx.Response) -> Pixels:
    return np.stack([pixels_of(base64.b64decode(one["png"])) for one in response.json()["images"]])


def from_npy(response: httpx.Response) -> Pixels:
    pixels: Pixels = np.load(io.BytesIO(response.content))
    return pixels


def test_json_names_model_version_and_seeds_in_the_order_asked_for(http: httpx.Client) -> None:
    response = ask(http, seeds=SEEDS, version=None, labels=False, curated=False, digit=None)
    answer = response.json()
    assert response.headers["content-type"] == "application/json"
    assert (answer["model"], answer["version"]) == ("generator", 3)
    assert [image["seed"] for image in answer["images"]] == SEEDS
    assert {frozenset(image) for image in answer["images"]} == {frozenset({"seed", "png"})}
    pixels = from_json(response)
    assert pixels.shape == (5, 28, 28)
    assert np.array_equal(pixels[0], pixels[4])
    assert not np.array_equal(pixels[0], pixels[1])


def test_all_formats_hold_the_same_pixels(http: httpx.Client) -> None:
    expected = from_json(ask(http, seeds=SEEDS))
    npy = ask(http, "application/x-npy", seeds=SEEDS)
    assert npy.headers["content-type"] == "application/x-npy"
    assert from_npy(npy).dtype == np.uint8
    assert np.array_equal(from_npy(npy), expected)
    zipped = ask(http, "application/zip", seeds=SEEDS)
    assert zipped.headers["content-type"] == "application/zip"
    with zipfile.ZipFile(io.BytesIO(zipped.content)) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == [f"{place}-{seed}.png" for place, seed in enumerate(SEEDS)]
        info = archive.infolist()[0]
        assert (info.external_attr >> 16, info.compress_type) == (0o100644, zipfile.ZIP_STORED)
        assert info.date_time == (1980, 1, 1, 0, 0, 0), "the same bytes each time"
        stored = np.stack([pixels_of(archive.read(name)) for name in archive.namelist()])
    assert np.array_equal(stored, expected)
    sheet = ask(http, "image/png", seeds=SEEDS)
    assert sheet.headers["content-type"] == "image/png"
    for response in (npy, zipped, sheet):
        assert response.headers["x-model"] == "generator"
        assert response.headers["x-model-version"] == "3"
        assert response.headers["vary"] == "Accept"


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
def test_a_sheet_is_nearly_square_and_holds_each_image_in_reading_order_on_black(
    http: httpx.Client, count: int, rows: int, columns: int
) -> None:
    sheet = pixels_of(ask(http, "image/png", seeds=list(range(count))).content)
    expected = np.zeros((rows * 30 + 2, columns * 30 + 2), np.uint8)
    for index, digit in enumerate(from_npy(ask(http, "application/x-npy", seeds=list(range(count))))):
        top, left = 2 + 30 * (index // columns), 2 + 30 * (index % columns)
        expected[top : top + 28, left : left + 28] = digit
    assert np.array_equal(sheet, expected)


def test_noise_gives_the_digit_of_the_seed_that_it_came_from(http: httpx.Client) -> None:
    response = ask(http, noise=noise_from_seeds(SEEDS).tolist())
    assert all(set(image) == {"png"} for image in response.json()["images"])
    assert np.array_equal(from_json(response), from_json(ask(http, seeds=SEEDS)))


def test_whole_numbers_may_have_a_point(http: httpx.Client) -> None:
    """JSON knows one kind of number, and JSON Schema takes 7.0 for an integer."""
    with_points = ask(http, seeds=[7.0, 8], scale=2.0, version=3.0).json()
    assert with_points == ask(http, seeds=[7, 8], scale=2, version=3).json()
    assert [image["seed"] for image in with_points["images"]] == [7, 8]
    assert len(ask(http, count=2.0).json()["images"]) == 2
    assert from_json(ask(http, noise=[[0] * 100])).shape == (1, 28, 28)


def test_chosen_seeds_are_told_and_give_the_same_digits_again(http: httpx.Client) -> None:
    first = ask(http, count=5)
    seeds = [image["seed"] for image in first.json()["images"]]
    assert np.array_equal(from_json(first), from_json(ask(http, seeds=seeds)))
    assert ask(http, count=5).json()["images"][0]["seed"] != seeds[0]


@pytest.mark.parametrize("accept", ["application/x-npy", "image/png", "application/zip"])
def test_formats_without_room_for_seeds_tell_the_chosen_ones_in_a_header(http: httpx.Client, accept: str) -> None:
    response = ask(http, accept, count=9)
    first, last = map(int, response.headers["x-seeds"].split("-"))
    assert last - first == 8
    assert ask(http, accept, seeds=list(range(first, last + 1))).content == response.content


@pytest.mark.parametrize("scale", [2, 3, 32])
def test_scale_repeats_pixels(http: httpx.Client, scale: int) -> None:
    small = from_json(ask(http, seeds=[1, 2]))
    large = small.repeat(scale, axis=1).repeat(scale, axis=2)
    assert np.array_equal(from_json(ask(http, seeds=[1, 2], scale=scale)), large)
    assert np.array_equal(from_npy(ask(http, "application/x-npy", seeds=[1, 2], scale=scale)), large)
    with zipfile.ZipFile(io.BytesIO(ask(http, "application/zip", seeds=[1, 2], scale=scale).content)) as archive:
        assert np.array_equal(pixels_of(archive.read("1-2.png")), large[1])
    sheet = pixels_of(ask(http, "image/png", seeds=[1, 2], scale=scale).content)
    assert np.array_equal(sheet[2 * scale : 30 * scale, 32 * scale : 60 * scale], large[1])


def test_a_seeds_pixels_do_not_depend_on_its_batch(http: httpx.Client) -> None:
    batch = 7
    seeds = list(range(1000, 1064))
    alone = np.concatenate([from_npy(ask(http, "application/x-npy", seeds=[seed])) for seed in seeds])
    together = [
        from_npy(ask(http, "application/x-npy", seeds=seeds[start : start + batch]))
        for start in range(0, len(seeds), batch)
    ]
    assert np.array_equal(np.concatenate(together), alone)


def test_more_images_than_a_model_batch_come_in_order(http: httpx.Client) -> None:
    seeds = list(range(600, 0, -1))
    npy = from_npy(ask(http, "application/x-npy", seeds=seeds))
    assert npy.shape == (600, 28, 28)
    picks = [0, 255, 256, 511, 512, 599]
    assert np.array_equal(npy[picks], from_npy(ask(http, "application/x-npy", seeds=[seeds[i] for i in picks])))
    response = ask(http, seeds=seeds)
    assert [image["seed"] for image in response.json()["images"]] == seeds
    assert np.array_equal(from_json(response), npy)


def test_more_files_than_the_old_zip_format_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a limit of 2 in place of 65,535: the directory is then the new format's."""
    monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 2)
    stream = ZipStream()
    archive = b"".join([*(stream.add([(name, b"a")]) for name in "012"), stream.finish()])
    assert b"PK\x06\x06" in archive
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        assert opened.namelist() == ["0", "1", "2"]
