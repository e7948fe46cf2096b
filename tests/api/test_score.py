"""POST /score: the discriminator's opinion, however the images arrive."""

import base64
from collections.abc import Callable
from functools import partial
from typing import Any

import httpx
import numpy as np
import pytest

from benchmarks.drawings import KINDS, drawn
from tests.support.gateways import assert_problem
from tests.support.pictures import Pixels, base64_of, pixels_of, saved

PLAIN = {"probability", "logit", "verdict", "fitted", "ink", "polarity", "box", "reason"}


@pytest.fixture(scope="module")
def digits(http: httpx.Client) -> list[bytes]:
    return [http.get(f"/digits/{seed}.png").content for seed in range(3)]


def post(http: httpx.Client, images: list[bytes], **options: object) -> httpx.Response:
    return http.post("/score", json={"images": list(map(base64_of, images)), **options})


def scores(response: httpx.Response) -> list[dict[str, Any]]:
    assert response.status_code == 200, response.text
    answer = response.json()
    assert (answer["model"], answer["version"]) == ("discriminator", 4)
    result: list[dict[str, Any]] = answer["scores"]
    return result


def test_a_score_is_a_logit_its_probability_and_a_verdict(http: httpx.Client, digits: list[bytes]) -> None:
    for score in scores(post(http, digits)):
        assert set(score) == PLAIN
        assert (score["ink"], score["polarity"], score["box"], score["reason"]) == (True, None, None, None)
        assert 0 <= score["probability"] <= 1
        assert score["verdict"] == ("real" if score["probability"] > 0.5 else "fake")
        assert score["fitted"] is False


def test_json_multipart_and_raw_give_the_same_scores(http: httpx.Client, digits: list[bytes]) -> None:
    logits = [score["logit"] for score in scores(post(http, digits))]
    urls = [f"data:image/png;base64,{base64_of(image)}" for image in digits]
    for parts in ([(f"{place}.png", image) for place, image in enumerate(digits)], [(None, url) for url in urls]):
        response = http.post("/score", files=[("images", part) for part in parts])
        assert [score["logit"] for score in scores(response)] == pytest.approx(logits, abs=1e-3)
    for image, logit in zip(digits, logits, strict=True):
        (raw,) = scores(http.post("/score", content=image, headers={"Content-Type": "image/png"}))
        assert raw["logit"] == pytest.approx(logit, abs=1e-3)


def test_as_many_as_allowed_are_scored_in_order(http: httpx.Client, digits: list[bytes]) -> None:
    many = [digits[place % 3] for place in range(256)]
    logits = [score["logit"] for score in scores(post(http, many))]
    assert len(logits) == 256
    assert logits[:3] == pytest.approx(logits[-4:-1], abs=1e-3)
    assert logits[0] != pytest.approx(logits[1])


@pytest.mark.parametrize("image", [saved(np.full((64, 64), 255, np.uint8)), saved(np.zeros((28, 28), np.uint8))])
def test_without_ink_there_is_no_verdict_and_no_digit_and_a_reason(http: httpx.Client, image: bytes) -> None:
    (score,) = scores(post(http, [image], labels=True))
    assert score["ink"] is False
    for name in ("verdict", "digit", "confidence", "digit_probabilities", "polarity", "box"):
        assert score[name] is None
    assert score["reason"] == "no ink was found in the image"


@pytest.fixture(scope="module")
def curated(http: httpx.Client) -> list[tuple[int, Pixels]]:
    made = http.post("/generate", json={"count": 20, "start": 0, "curated": True}).json()["images"]
    return [(one["digit"], pixels_of(base64.b64decode(one["png"]))) for one in made]


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_drawing_is_read_right(http: httpx.Client, curated: list[tuple[int, Pixels]], kind: str) -> None:
    random = np.random.default_rng(3)
    images = [saved(KINDS[kind](drawn(pixels, random), random)) for _, pixels in curated]
    found = scores(post(http, images, labels=True))
    assert sum(score["digit"] == digit for score, (digit, _) in zip(found, curated, strict=True)) >= 19
    assert all(score["ink"] and score["fitted"] and score["polarity"] and len(score["box"]) == 4 for score in found)


def test_options_are_query_parameters_members_and_form_fields(http: httpx.Client, digits: list[bytes]) -> None:
    query = "/score?fit=always&labels=true&fitted_images=true"
    options = {"fit": "always", "labels": True, "fitted_images": True}
    form = {name: str(value).lower() for name, value in options.items()}
    files = [("images", ("0.png", digits[0], "image/png"))]
    raw = partial(http.post, content=digits[0], headers={"Content-Type": "image/png"})
    for response in (
        raw(query),
        http.post(query, files=files),
        http.post("/score?fit=never", files=files, data=form),
        post(http, digits[:1], **options),
    ):
        (score,) = scores(response)
        assert set(score) == PLAIN | {"digit", "confidence", "digit_probabilities", "png"}
        assert score["fitted"] is True
    (plain,) = scores(http.post(query, files=files, data={"labels": "false", "fitted_images": "false"}))
    assert set(plain) == PLAIN
    assert_problem(raw("/score?fit=some"), "invalid-request", "fit")


def test_never_takes_28_by_28_gray_pixels_and_says_so(http: httpx.Client) -> None:
    noise = saved(np.random.default_rng(1).integers(0, 256, (28, 28), np.uint8))
    page = saved(np.full((30, 40), 255, np.uint8))
    assert scores(post(http, [noise], fit="never"))[0]["fitted"] is False
    response = post(http, [noise, page], fit="never")
    assert_problem(response, "invalid-request", "/images/1")
    assert "40×30 pixels; with fit=never, 28×28 gray and opaque pixels are needed" in response.text


@pytest.mark.parametrize(
    "write",
    [
        lambda text: f"data:image/png;base64,{text}",
        lambda text: f"DATA:image/png;name=a.png;base64,{text.replace('+', '%2B')}",
        lambda text: "\r\n".join(text[place : place + 76] for place in range(0, len(text), 76)) + "\n",
        lambda text: text.rstrip("="),
        lambda text: text.replace("+", "-").replace("/", "_"),
    ],
)
def test_base64_as_people_have_it(http: httpx.Client, digits: list[bytes], write: Callable[[str], str]) -> None:
    texts = [write(base64_of(image)) for image in digits]
    expected = [score["logit"] for score in scores(post(http, digits))]
    found = scores(http.post("/score", json={"images": texts}))
    assert [score["logit"] for score in found] == pytest.approx(expected, abs=1e-3)


def test_mnists_images_are_read_as_they_are(http: httpx.Client) -> None:
    """The generator's stand in for them; all of MNIST's 70,000 pass (``python -m benchmarks.drawings``)."""
    made = http.post("/generate", json={"count": 200, "start": 10_000, "labels": True}).json()["images"]
    body = {"images": [image["png"] for image in made], "labels": True}
    found = zip(made, scores(http.post("/score", json=body)), strict=True)
    kept = [(image, score) for image, score in found if not score["fitted"]]
    assert len(kept) >= 198, "a generated digit can be off the middle, or faint"
    for image, score in kept:
        assert score["digit"] == image["digit"]
        assert score["confidence"] == pytest.approx(image["confidence"], abs=1e-4)
        assert len(score["digit_probabilities"]) == 10
        assert sum(score["digit_probabilities"]) == pytest.approx(1, abs=1e-4)
        assert score["digit_probabilities"][score["digit"]] == score["confidence"]


def test_the_pixels_that_were_scored_are_given_back(http: httpx.Client, digits: list[bytes]) -> None:
    page = np.full((300, 200), 240, np.uint8)
    page[100:200, 90:110] = 20
    first = scores(post(http, [saved(page), digits[0]], fitted_images=True))
    pngs = [base64.b64decode(score["png"]) for score in first]
    fitted = pixels_of(pngs[0])
    assert fitted.shape == (28, 28)
    assert fitted[14, 14] == 255
    assert np.array_equal(pixels_of(pngs[1]), pixels_of(digits[0]))
    again = scores(post(http, pngs))
    assert [score["fitted"] for score in again] == [False, False]
    assert [score["logit"] for score in again] == pytest.approx([score["logit"] for score in first], abs=1e-3)
