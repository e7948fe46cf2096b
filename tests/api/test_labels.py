"""POST /generate with labels, digit and curated, on the small models."""

import csv
import io
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from serving.contract import GENERATOR, MODELS
from tests.api.test_generate import FORMATS, ask, pixels_in
from tests.api.test_models import model
from tests.support import gateways, saved_models
from tests.support.gateways import GatewayClient, assert_problem
from tests.support.pictures import Pixels, pixels_of
from tests.support.processes import PROGRAM, repeating, wait_until
from tests.support.saved_models import BY_CLASSIFIER, BY_INDEX, DOUBTFUL, INDEXED, SHADE, garble_graph


def shown(pixels: Pixels) -> Pixels:
    """The digits that the images [N, 28, 28] show."""
    return pixels[:, 14, 14] // SHADE


def test_labels_come_from_the_index_or_else_from_the_classifier(
    small_http: GatewayClient,
) -> None:
    seeds = [5, INDEXED - 1, INDEXED, 2**53 - 1, 5]
    response = ask(small_http, seeds=seeds, labels=True)
    images = response.json()["images"]
    assert [image["seed"] for image in images] == seeds
    assert [image["digit"] for image in images] == shown(pixels_in(response)).tolist()
    assert [image["confidence"] for image in images] == [BY_INDEX, BY_INDEX, BY_CLASSIFIER, BY_CLASSIFIER, BY_INDEX]


def test_noise_and_chosen_seeds_are_labelled_by_the_classifier(small_http: GatewayClient) -> None:
    noise = np.random.default_rng(1).normal(size=(300, 100)).tolist()
    for body in ({"noise": noise}, {"count": 300}):
        response = ask(small_http, labels=True, **body)
        images = response.json()["images"]
        assert [image["digit"] for image in images] == shown(pixels_in(response)).tolist()
        assert {image["confidence"] for image in images} == {BY_CLASSIFIER}


KINDS: list[dict[str, Any]] = [{"digit": 0}, {"digit": 7}, {"curated": True}, {"digit": 7, "curated": True}]


def seeds_of(kind: dict[str, Any]) -> list[int]:
    """All seeds in the index that make digits of a kind."""
    seeds = np.arange(INDEXED)
    fitting = saved_models.confidences(seeds) > DOUBTFUL
    if "digit" in kind:
        fitting &= saved_models.digits_of_seeds(range(INDEXED), 0) == kind["digit"]
    if "curated" in kind:
        fitting &= saved_models.curated(seeds)
    found: list[int] = np.flatnonzero(fitting).tolist()
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_random_digits_of_a_kind_may_be_all_of_them(small_http: GatewayClient, kind: dict[str, Any]) -> None:
    expected = seeds_of(kind)
    response = ask(small_http, count=len(expected), **kind)
    images = response.json()["images"]
    assert sorted(image["seed"] for image in images) == expected
    assert [image["digit"] for image in images] == shown(pixels_in(response)).tolist()
    assert {image["confidence"] for image in images} == {BY_INDEX}
    again = ask(small_http, count=100, **kind).json()["images"]
    assert [image["seed"] for image in again] != [image["seed"] for image in images[:100]]
    more = small_http.post("/generate", json={"count": len(expected) + 1, **kind})
    assert f"version 1 has {len(expected)} " in assert_problem(more, "invalid-request", "/count")["detail"]


@pytest.mark.parametrize("kind", [{}, {"digit": 3}])
@pytest.mark.parametrize("accept", FORMATS)
def test_chosen_seeds_are_in_a_header(small_http: GatewayClient, accept: str, kind: dict[str, Any]) -> None:
    response, other = (ask(small_http, accept, count=9, **kind) for _ in range(2))
    listed = response.headers["x-seeds"]
    assert listed != other.headers["x-seeds"]
    first, _, last = listed.partition("-")
    seeds = [int(seed) for seed in listed.split(",")] if kind else list(range(int(first), int(last) + 1))
    assert len(set(seeds)) == 9
    again = ask(small_http, accept, seeds=seeds, labels=bool(kind) and accept in FORMATS[::2])
    assert again.content == response.content


def test_a_zip_ends_with_a_table_of_the_labels(small_http: GatewayClient) -> None:
    response = ask(small_http, "application/zip", seeds=list(range(INDEXED - 300, INDEXED + 300)), labels=True)
    with zipfile.ZipFile(io.BytesIO(response.content)) as archive:
        *names, last = archive.namelist()
        assert last == "labels.csv"
        rows = list(csv.DictReader(io.TextIOWrapper(archive.open(last), "utf-8")))
        assert [row["file"] for row in rows] == names
        digits = [int(pixels_of(archive.read(name))[14, 14]) // SHADE for name in names]
    assert [int(row["digit"]) for row in rows] == digits
    assert [int(row["seed"]) for row in rows] == list(range(INDEXED - 300, INDEXED + 300))
    assert [float(row["confidence"]) for row in rows] == [
        *saved_models.confidences(np.arange(INDEXED - 300, INDEXED)),
        *[BY_CLASSIFIER] * 300,
    ]
    response = ask(small_http, "application/zip", noise=[[0.0] * 100], labels=True)
    with zipfile.ZipFile(io.BytesIO(response.content)) as archive:
        assert archive.read("labels.csv") == b"file,seed,digit,confidence\n0.png,,5,0.91\n"


def test_the_verdict_follows_the_calibrated_probability(small_http: GatewayClient) -> None:
    """A logit of 1 is above zero and its probability below one half: fake."""
    verdicts = {}
    for digit in (4, 6, 8):
        image = ask(small_http, "image/png", count=1, digit=digit).content
        answer = small_http.post("/score?fit=never", content=image, headers={"Content-Type": "image/png"})
        (score,) = answer.json()["scores"]
        verdicts[round(score["logit"], 4)] = (score["probability"] > 0.5, score["verdict"])
    assert verdicts == {-1.0: (False, "fake"), 1.0: (False, "fake"), 3.0: (True, "real")}


def test_a_digit_stays_that_digit_and_no_request_fails_while_versions_change(
    small_models: Path, sockets: Path, tmp_path: Path
) -> None:
    """Version 2 makes eights of the seeds of sevens, version 3 is broken, and version 4 has no index."""
    for name in MODELS:
        (tmp_path / name).mkdir()
        (tmp_path / name / "1").symlink_to(small_models / name / "1")

    with (
        gateways.model_server(tmp_path, sockets / "changing.sock", PROGRAM) as server,
        gateways.serving(server.target) as client,
    ):

        def publish(version: int, *, broken: bool = False, **options: Any) -> None:
            beside = tmp_path / f"{version}.partial"
            saved_models.save_generator(beside, **options)
            if broken:
                garble_graph(beside)
            beside.rename(tmp_path / GENERATOR / str(version))

        def wait_for(version: int) -> None:
            wait_until(lambda: client.get("/digits/1.png").headers["x-model-version"] == str(version), seconds=300)

        with repeating(lambda: ask(client, count=20, digit=7)) as answers:
            wait_until(lambda: bool(answers))
            publish(2, shift=1)
            wait_for(2)
            before = len(answers)
            publish(3, broken=True)
            wait_until(lambda: client.metric("model_newest_version_failed", model=GENERATOR) == 1, seconds=300)
            wait_until(lambda: len(answers) > before + 1)
        assert {answer.json()["version"] for answer in answers} == {1, 2}
        for answer in answers:
            pixels = pixels_in(answer)
            assert (pixels[:, 0, 0] == answer.json()["version"] - 1).all()
            assert (shown(pixels) == 7).all()
        assert client.get("/healthz/ready").status_code == 200
        degraded = model(client, GENERATOR)
        assert (degraded["status"], degraded["serving"]) == ("degraded", 2)
        assert re.match(r"version 3: DATA_LOSS.*; version 2 serves on$", degraded["detail"], re.DOTALL)
        newest = degraded["versions"][0]
        assert (newest["version"], newest["state"], newest["error"]["code"]) == (3, "END", "DATA_LOSS")
        assert newest["error"]["message"] in degraded["detail"]
        publish(4, indexed=None)
        wait_for(4)
        assert model(client, GENERATOR)["status"] == "available"
        for body, places in (({"digit": 7}, ["/digit"]), ({"digit": 7, "curated": True}, ["/digit", "/curated"])):
            assert_problem(client.post("/generate", json={"count": 1} | body), "no-seed-index", *places)
        (image,) = ask(client, seeds=[5], labels=True).json()["images"]
        assert image["confidence"] == BY_CLASSIFIER


def test_seeds_follow_from_the_start_on(small_http: GatewayClient) -> None:
    response = ask(small_http, "application/x-npy", count=100, start=2**40)
    assert response.headers["x-seeds"] == f"{2**40}-{2**40 + 99}"
    seeds = list(range(2**40, 2**40 + 100))
    assert np.array_equal(pixels_in(response), pixels_in(ask(small_http, "application/x-npy", seeds=seeds)))


@pytest.mark.parametrize("kind", KINDS)
def test_pages_of_a_kind_are_all_of_them_once_in_order(small_http: GatewayClient, kind: dict[str, Any]) -> None:
    found, start = [], 0
    while True:
        body = {"count": 256, "start": start, **kind}
        response = small_http.post("/generate", json=body, headers={"Accept": "application/x-npy"})
        if response.status_code != 200:
            break
        found += [int(seed) for seed in response.headers["x-seeds"].split(",")]
        start = found[-1] + 1
    assert "index" in assert_problem(response, "invalid-request", "/start")["detail"]
    assert found == seeds_of(kind)
