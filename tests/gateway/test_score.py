"""POST /score: the discriminator's opinion, however the images arrive."""

import base64
import io
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.gateway.problem import assert_problem

Pixels = NDArray[np.uint8]


def encoded(pixels: Pixels, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


@pytest.fixture(scope="module")
def digits(http: httpx.Client) -> list[bytes]:
    return [http.get(f"/digits/{seed}.png").content for seed in range(3)]


def as_json(http: httpx.Client, images: list[bytes]) -> httpx.Response:
    return http.post("/score", json={"images": [base64.b64encode(image).decode() for image in images]})


def scores(response: httpx.Response) -> list[dict[str, Any]]:
    assert response.status_code == 200, response.text
    answer = response.json()
    assert (answer["model"], answer["version"]) == ("discriminator", 1)
    result: list[dict[str, Any]] = answer["scores"]
    return result


def test_a_score_is_a_logit_its_probability_and_a_verdict(http: httpx.Client, digits: list[bytes]) -> None:
    for score in scores(as_json(http, digits)):
        assert set(score) == {"probability", "logit", "verdict", "fitted"}
        assert 0 <= score["probability"] <= 1
        assert score["verdict"] == ("real" if score["probability"] > 0.5 else "fake")
        assert score["fitted"] is False


def test_json_multipart_and_raw_give_the_same_scores(http: httpx.Client, digits: list[bytes]) -> None:
    expected = scores(as_json(http, digits))
    files = [("images", (f"{place}.png", image, "image/png")) for place, image in enumerate(digits)]
    logits = [score["logit"] for score in expected]
    assert [score["logit"] for score in scores(http.post("/score", files=files))] == pytest.approx(logits)
    raw = [
        scores(http.post("/score", content=image, headers={"Content-Type": "image/png"}))[0]["logit"]
        for image in digits
    ]
    assert raw == pytest.approx(logits)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_a_photograph_of_a_digit_is_fitted_and_the_answer_says_so(http: httpx.Client, kind: str) -> None:
    page = np.full((300, 200), 240, np.uint8)
    page[100:200, 90:110] = 20
    files = {"images": ("one", encoded(page, kind))}
    assert scores(http.post("/score", files=files))[0]["fitted"] is True


def test_a_28_by_28_jpeg_without_colour_is_scored_as_it_is(http: httpx.Client) -> None:
    page = np.zeros((28, 28), np.uint8)
    page[5:23, 12:16] = 255
    assert scores(as_json(http, [encoded(page, "JPEG")]))[0]["fitted"] is False


def test_as_many_as_allowed_are_scored_in_order(http: httpx.Client, digits: list[bytes]) -> None:
    many = [digits[place % 3] for place in range(256)]
    logits = [score["logit"] for score in scores(as_json(http, many))]
    assert len(logits) == 256
    assert logits[:3] == pytest.approx(logits[-4:-1], rel=1e-5)
    assert logits[0] != pytest.approx(logits[1])


def test_an_empty_page_gets_a_score_too(http: httpx.Client) -> None:
    (score,) = scores(as_json(http, [encoded(np.full((64, 64), 255, np.uint8))]))
    assert score["fitted"] is True


def test_labels_tell_what_the_classifier_reads(http: httpx.Client) -> None:
    made = http.post("/generate", json={"count": 20, "curated": True}).json()["images"]
    body = {"images": [image["png"] for image in made], "labels": True}
    for image, score in zip(made, scores(http.post("/score", json=body)), strict=True):
        assert score["digit"] == image["digit"]
        assert score["confidence"] == pytest.approx(image["confidence"], abs=1e-4)
        assert len(score["digit_probabilities"]) == 10
        assert sum(score["digit_probabilities"]) == pytest.approx(1, abs=1e-4)
        assert score["digit_probabilities"][score["digit"]] == score["confidence"]


def test_the_pixels_that_were_scored_are_given_back(http: httpx.Client, digits: list[bytes]) -> None:
    page = np.full((300, 200), 240, np.uint8)
    page[100:200, 90:110] = 20
    sent = [encoded(page), digits[0]]
    body = {"images": [base64.b64encode(image).decode() for image in sent], "fitted_images": True}
    first = scores(http.post("/score", json=body))
    pngs = [base64.b64decode(score["png"]) for score in first]
    fitted = np.asarray(Image.open(io.BytesIO(pngs[0])))
    assert fitted.shape == (28, 28)
    assert fitted[14, 14] == 255
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(pngs[1]))), np.asarray(Image.open(io.BytesIO(digits[0]))))
    again = scores(as_json(http, pngs))
    assert [score["fitted"] for score in again] == [False, False]
    assert [score["logit"] for score in again] == pytest.approx([score["logit"] for score in first], rel=1e-4)


def test_options_are_form_fields_too(http: httpx.Client, digits: list[bytes]) -> None:
    files = [("images", ("0.png", digits[0], "image/png"))]
    form = {"labels": "true", "fitted_images": "true"}
    (score,) = scores(http.post("/score", files=files, data=form))
    assert {"digit", "confidence", "digit_probabilities", "png"} < set(score)
    (plain,) = scores(http.post("/score", files=files, data={"labels": "false"}))
    assert set(plain) == {"probability", "logit", "verdict", "fitted"}
    assert_problem(http.post("/score", files=files, data={"labels": "yes"}), "invalid-request", "/labels")
    assert_problem(http.post("/score", files=files, data={"label": "true"}), "invalid-request", "/label")
    body = {"images": [base64.b64encode(digits[0]).decode()], "labels": 1}
    assert_problem(http.post("/score", json=body), "invalid-request", "/labels")
