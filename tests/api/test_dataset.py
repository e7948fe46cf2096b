"""POST /dataset on the small models, compared with a plain loop over the seeds."""

import csv
import io
import zipfile
from typing import Any

import numpy as np
import pytest
from PIL import Image

from api.digits.seed_scan import MAX_SCANNED_WITHOUT_MATCH
from api.middleware.keys import hash_of, new_key
from serving.contract import MAX_SEED
from serving.dataset import Records
from tests.support import saved_models
from tests.support.gateways import GatewayClient, assert_problem, faulty_gateway, serving
from tests.support.misbehaving import delayed
from tests.support.saved_models import BY_CLASSIFIER, INDEXED, SHADE

NPY = "application/x-npy"


def collect(http: GatewayClient, **body: Any) -> Records:
    response = http.post("/dataset", json={"confidence_floor": 0.9} | body, headers={"Accept": NPY})
    assert response.status_code == 200, response.text
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
        body = {"count": 10, "confidence_floor": 0.9, "quotas": [10, *[0] * 9]}
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
    natural = collect(small_http, count=150, balance="natural")
    assert natural["seed"].tolist() == expected(150, None, 0)


def test_a_floor_of_the_logit(small_http: GatewayClient) -> None:
    records = collect(small_http, count=50, balance="natural", logit_floor=1)
    assert records["seed"].tolist() == expected(50, None, 0, logit_floor=1)
    assert records["digit"].min() == 6


def test_a_zip_has_a_folder_for_each_digit_and_a_table(small_http: GatewayClient) -> None:
    body = {"count": 30, "confidence_floor": 0.9, "scale": 2}
    records = collect(small_http, **body)
    response = small_http.post("/dataset", json=body)
    assert response.headers["content-type"] == "application/zip"
    for model in ("Model", "Classifier", "Discriminator"):
        assert response.headers[f"X-{model}-Version"] == "1"
    with zipfile.ZipFile(io.BytesIO(response.content)) as archive:
        assert archive.testzip() is None
        rows = list(csv.DictReader(io.StringIO(archive.read("labels.csv").decode())))
        assert [row["file"] for row in rows] == archive.namelist()[:-1]
        for row, one in zip(rows, records, strict=True):
            assert row["file"].startswith(f"{one['digit']}/")
            assert (int(row["seed"]), int(row["digit"])) == (one["seed"], one["digit"])
            assert (np.float32(row["confidence"]), np.float32(row["logit"])) == (one["confidence"], one["logit"])
            with Image.open(io.BytesIO(archive.read(row["file"]))) as image:
                assert np.array_equal(np.asarray(image), one["pixels"])


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
