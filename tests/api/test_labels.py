"""POST /generate with labels, digit and curated, and POST /dataset, on the small models."""

import csv
import io
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from api.digits.seed_scan import MAX_SCANNED_WITHOUT_MATCH
from api.middleware.keys import hash_of, new_key
from serving.contract import GENERATOR, MAX_SEED, MODELS
from serving.dataset import Records
from tests.api.test_generate import FORMATS, ask, pixels_in
from tests.api.test_models import model
from tests.support import gateways, saved_models
from tests.support.gateways import GatewayClient, assert_problem, faulty_gateway, serving
from tests.support.misbehaving import delayed
from tests.support.pictures import Pixels, pixels_of
from tests.support.processes import PROGRAM, repeating, wait_until
from tests.support.saved_models import BY_CLASSIFIER, BY_INDEX, DOUBTFUL, INDEXED, SHADE, garble_graph


def shown(pixels: Pixels) -> Pixels:
    """The digits that the images [N, 28, 28] show."""
    return pixels[:, 14, 14] // SHADE


def test_labels_come_from_the_index_or_else_from_the_classifier(small_http: GatewayClient) -> None:
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


@pytest.mark.parametrize("kind", [{}, {"digit": 3}, {"start": 2**40}])
@pytest.mark.parametrize("accept", FORMATS)
def test_chosen_seeds_are_in_a_header(small_http: GatewayClient, accept: str, kind: dict[str, Any]) -> None:
    response, other = (ask(small_http, accept, count=9, **kind) for _ in range(2))
    listed = response.headers["x-seeds"]
    assert (listed == other.headers["x-seeds"]) == ("start" in kind)
    first, _, last = listed.partition("-")
    seeds = [int(seed) for seed in listed.split(",")] if "digit" in kind else list(range(int(first), int(last) + 1))
    assert len(set(seeds)) == 9
    assert seeds[0] == kind.get("start", seeds[0])
    again = ask(small_http, accept, seeds=seeds, labels="digit" in kind and accept in FORMATS[::2])
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


NPY = "application/x-npy"


def collect(http: GatewayClient, **body: Any) -> Records:
    response = ask(http, NPY, path="/dataset", **{"confidence_floor": 0.9} | body)
    assert int(response.headers["content-length"]) == len(response.content)
    records: Records = np.load(io.BytesIO(response.content), allow_pickle=False)
    return records


def expected(count: int, of_each: list[int] | None, first_seed: int, logit_floor: float = -99) -> list[int]:
    """The seeds that a walk from ``first_seed`` on keeps."""
    seeds = np.arange(first_seed, first_seed + 200 * count + 1000)
    digits = saved_models.digits_of_seeds(seeds.tolist(), 0)
    left = list(of_each or [count] * 10)
    found: list[int] = []
    for seed, digit in zip(seeds.tolist(), digits.tolist(), strict=True):
        if len(found) < count and left[digit] and digit - 5 >= logit_floor:
            left[digit] -= 1
            found.append(seed)
    return found


@pytest.mark.parametrize("first_seed", [0, 777, INDEXED - 300, 2**40 + 5])
def test_the_first_digits_that_pass_come_in_order(small_http: GatewayClient, first_seed: int) -> None:
    records = collect(small_http, count=100, first_seed=first_seed)
    assert records["seed"].tolist() == expected(100, [10] * 10, first_seed)
    assert records["digit"].tolist() == (records["pixels"][:, 14, 14] // SHADE).tolist()
    assert np.array_equal(records["logit"], records["digit"] - np.float32(5))
    assert (records["confidence"] == np.float32(BY_CLASSIFIER)).all()


def test_a_key_is_charged_for_every_image_that_is_made(small_server: str) -> None:
    key = new_key()
    settings = {"api_keys": f"me:{hash_of(key)}", "key_images_per_minute": 200}
    with serving(small_server, **settings) as http:
        http.headers["Authorization"] = f"Bearer {key}"
        body = {"count": 40, "confidence_floor": 0.9, "quotas": [40, *[0] * 9]}
        assert http.post("/dataset", json=body).status_code == 200
        assert http.metric("images_generated_total", version="1") >= 512
        assert_problem(http.get("/models"), "rate-limited")


def test_going_on_after_the_last_seed_gives_what_an_uninterrupted_walk_gives(small_http: GatewayClient) -> None:
    whole = collect(small_http, count=300, first_seed=INDEXED - 500)
    first = collect(small_http, count=111, first_seed=INDEXED - 500, quotas=[30] * 10)
    left = (30 - np.bincount(first["digit"], minlength=10)).tolist()
    rest = collect(small_http, count=189, first_seed=int(first["seed"][-1]) + 1, quotas=left)
    assert np.array_equal(np.concatenate([first, rest]), whole)


def test_the_balance_is_kept(small_http: GatewayClient) -> None:
    mnist = [15, 17, 15, 15, 14, 13, 15, 16, 15, 15]
    for balance, quotas in (("uniform", [10] * 3 + [9] * 7), ("mnist", mnist)):
        records = collect(small_http, count=sum(quotas), balance=balance)
        assert np.bincount(records["digit"], minlength=10).tolist() == quotas
    for as_it_comes in ({"balance": "natural"}, {"quotas": [2**63] * 10}):
        assert collect(small_http, count=150, **as_it_comes)["seed"].tolist() == expected(150, None, 0)


def test_a_floor_of_the_logit(small_http: GatewayClient) -> None:
    records = collect(small_http, count=50, balance="natural", logit_floor=1)
    assert records["seed"].tolist() == expected(50, None, 0, logit_floor=1)
    assert records["digit"].min() == 6


def test_a_zip_has_a_folder_for_each_digit_and_a_table(small_http: GatewayClient) -> None:
    body = {"count": 30, "confidence_floor": 0.9, "scale": 2}
    records = collect(small_http, **body)
    response = small_http.post("/dataset", json=body)
    assert response.headers["content-type"] == "application/zip"
    for name in ("Model", "Classifier", "Discriminator"):
        assert response.headers[f"X-{name}-Version"] == "1"
    with zipfile.ZipFile(io.BytesIO(response.content)) as archive:
        assert archive.testzip() is None
        rows = list(csv.DictReader(io.StringIO(archive.read("labels.csv").decode())))
        assert [row["file"] for row in rows] == archive.namelist()[:-1]
        for row, one in zip(rows, records, strict=True):
            assert row["file"].startswith(f"{one['digit']}/")
            assert (int(row["seed"]), int(row["digit"])) == (one["seed"], one["digit"])
            assert (np.float32(row["confidence"]), np.float32(row["logit"])) == (one["confidence"], one["logit"])
            assert np.array_equal(pixels_of(archive.read(row["file"])), one["pixels"])


def test_what_there_is_not_is_told_before_anything_is_sent(small_http: GatewayClient) -> None:
    """After many seeds without a digit to keep, or where the seeds end."""
    asked: dict[str, Any] = {"count": 5, "confidence_floor": 0.9, "logit_floor": 4, "quotas": [0, 5, *[0] * 8]}
    places = ("/confidence_floor", "/logit_floor")
    problem = assert_problem(small_http.post("/dataset", json=asked, timeout=600), "invalid-request", *places)
    assert f"none of {MAX_SCANNED_WITHOUT_MATCH} seeds in a row" in problem["detail"]
    asked = {"count": 5, "confidence_floor": 0.95, "first_seed": MAX_SEED - 300}
    assert_problem(small_http.post("/dataset", json=asked), "invalid-request", "/confidence_floor")


def test_each_block_has_the_time_of_a_request() -> None:
    """All of them together take longer: the answer is that there is no such digit, and no timeout."""
    with faulty_gateway(request_timeout_s=8) as http:
        http.server.behaviour = delayed(0.25)
        asked = {"count": 1, "confidence_floor": 0.9, "first_seed": MAX_SEED - 40 * 256}
        assert_problem(http.post("/dataset", json=asked), "invalid-request", "/confidence_floor")
