"""The report: one page that needs no other file, from whatever there is of a run and of an evaluation."""

import base64
import json
import re
import shutil
from dataclasses import fields, replace
from html import unescape
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from serving.contract import GENERATOR
from serving.errors import UserError
from serving.versions.model_card import read_card
from tests.support.commands import assert_float32, digitgan_here
from tests.support.pictures import Handwritten, Pixels
from tests.support.pretrained import pretrained
from tests.training.test_config import CONFIG
from tests.training.test_score import by_brightness
from tests.training.test_story import brightness, write_run
from training.evaluation.figures import Measurement
from training.evaluation.score import score_figures
from training.report.criteria import results
from training.report.page import report
from training.report.pictures import COMPARED, PER_DIGIT, choose

SHIPPED = read_card(pretrained(GENERATOR))["evaluation"]
FIGURES: dict[str, Any] = SHIPPED["figures"] | {"frechet_distance": 4.0, "recall": 0.5, "legible": 0.961}
REFERENCE = SHIPPED["reference"] | {"frechet_distance": 2.0, "recall": 0.93, "class_shares": [0.1] * 10}
NOISE = np.random.default_rng(0).integers(0, 256, (40, 28, 28), np.uint8)
SCORE = score_figures(by_brightness, NOISE[:20] // 4, NOISE[20:]) | {"auc": 0.97, "expected_calibration_error": 0.05}
SCORE["intervals"]["auc"] = [0.96, 0.98]
EVALUATION: dict[str, Any] = SHIPPED | {
    "source": {"kind": "run", "version": 1, "preset": "<best>", "steps": 1000},
    "figures": FIGURES,
    "intervals": SHIPPED["intervals"]
    | {"frechet_distance": [3.9, 4.1], "legible": [0.955, 0.967], "recall": [0.4, 0.6]},
    "reference": REFERENCE,
    "reference_intervals": SHIPPED["reference_intervals"] | {"recall": [0.93, 0.93]},
    "score": SCORE,
}


class Page:
    def __init__(self, path: Path) -> None:
        self.html = path.read_text("utf-8")
        self.words = re.sub(r"\s+", " ", unescape(re.sub("<[^>]+>", "", self.html)))

    def all(self, tag: str, attribute: str) -> list[str]:
        return [unescape(found) for found in re.findall(rf'<{tag} [^>]*\b{attribute}="([^"]*)"', self.html)]


def pixels(uri: str) -> Pixels:
    with Image.open(BytesIO(base64.b64decode(uri.partition(",")[2]))) as picture:
        return np.asarray(picture)


def chosen(handwritten: Handwritten, count: int, *, without: int | None = None) -> dict[str, Any]:
    """Pictures of handwritten digits in place of generated ones, ever surer and ever farther from training images."""
    images, labels = handwritten
    kept = np.flatnonzero(labels != without)[:count]
    sure = np.linspace(0.2, 1, count)[:, None]
    rows: dict[str, Any] = dict.fromkeys(each.name for each in fields(Measurement))
    rows["probabilities"] = np.eye(10)[labels[kept]] * sure + (1 - sure) / 10
    rows["to_training"] = np.linspace(3, 9, count)
    measured = Measurement(**rows)
    return choose(images[kept], measured, images[200:], lambda noise: images[: len(noise)])


@pytest.fixture(scope="module")
def pictures(handwritten: Handwritten) -> dict[str, Any]:
    return chosen(handwritten, 200)


@pytest.fixture(scope="module")
def run(handwritten: Handwritten, pictures: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory with everything that a run and an evaluation leave."""
    run = tmp_path_factory.mktemp("runs") / "<run>"
    images = handwritten[0]
    figures = {**FIGURES, "reference": REFERENCE}
    rows = [{"step": step, "epoch": step / 100, **figures, "frechet_distance": 4e3 / step} for step in (200, 600, 1000)]
    write_run(run, images[64:128] // 2, images[64:128], images[:64], evaluations=rows)
    replace(CONFIG, data="/home/me/mnist.npz").write(run)
    (run / "evaluation.json").write_text(json.dumps(EVALUATION))
    (run / "pictures.json").write_text(json.dumps(pictures))
    card = {"chosen": {"step": 1000, "from_step": 200, "average_of": 3, "validation": 3.5}}
    (run / "models" / "generator" / "1").mkdir(parents=True)
    (run / "models" / "generator" / "1" / "model.json").write_text(json.dumps(card))
    return run


@pytest.fixture(scope="module")
def page(run: Path) -> Page:
    return Page(report(run, run, brightness))


def test_the_page_needs_nothing_else_and_has_everything(page: Page) -> None:
    assert not re.search("<(script|link)", page.html)
    for address in re.findall(r"""\b(?:src|href|srcset|action)=["']?([^"'\s>]+)""", page.html):
        assert address.startswith(("#", "data:image/png;base64,"))
    assert page.all("a", "href") == [f"#{name}" for name in page.all("section", "id")]
    assert "Run:" not in page.words, "nothing is missing"
    # Time-lapse, 3 milestones, 4 plots, digits, 5 interpolations, 20 × 2 neighbours, 18 illegible ones.
    assert len(page.all("img", "src")) == 1 + 3 + 4 + 1 + 5 + 40 + 18
    assert all(pixels(picture).size for picture in page.all("img", "src"))
    assert all(len(text) > 10 for text in page.all("img", "alt"))


def test_the_page_tells_figures_and_story(page: Page, run: Path) -> None:
    words = (
        "7 of 8 targets are met; missed: Recall.",
        "The Fréchet distance is 4.00, 2.0 times that of real digits",
        "4.00 ± 0.10",
        "96.1 ± 0.6 %",
        "0.970 ± 0.010",
        "mature, 100 % legible",
        "Were the losses stable? Stable.",
        "It was smallest at step 1,000: 4.00.",
        "The published generator is the average of 3 generators, from step 200 to 1,000",
    )
    assert [each for each in words if each not in page.words] == []
    assert page.words.count("✗") == 4, "recall; the calibration error, and blank and shuffled images"
    assert json.loads((run / "story.json").read_text())["run"]["chosen_step"] == 1000


def test_the_command_does_not_pass_off_old_figures_as_those_of_the_newest_version(run: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(run, tmp_path / "run")
    shutil.copytree(copy / "models" / "generator" / "1", copy / "models" / "generator" / "2")
    done = digitgan_here("report", copy)
    assert_float32()
    assert done.stdout == f"The report: {copy / 'report.html'}\n"
    page = Page(copy / "report.html")
    assert "These are the figures of version 1. Version 2 is not evaluated yet" in page.words


def test_texts_are_escaped_and_paths_left_out(page: Page) -> None:
    for name in ("best", "run"):
        assert f"&lt;{name}&gt;" in page.html
        assert f"<{name}>" not in page.html
    assert "mnist.npz" in page.words
    assert "/home/me" not in page.html


def test_what_is_missing_is_named_with_the_command_that_makes_it(tmp_path: Path) -> None:
    page = Page(report(tmp_path, None, brightness))
    assert page.all("img", "src") == []
    assert page.words.count("digitgan evaluate RUN") >= 6
    assert "digitgan report RUN" in page.words
    assert "Not evaluated yet" in page.words
    (tmp_path / "evaluation.json").write_text(json.dumps({**EVALUATION, "score": None}))
    assert "No discriminator was evaluated" in Page(report(tmp_path, None, brightness)).words
    (tmp_path / "evaluation.json").write_text("[1")
    with pytest.raises(UserError, match=r"evaluation\.json can't be read"):
        report(tmp_path, None, brightness)


def test_a_target_is_met_at_its_bound_and_missed_only_where_chance_is_excluded() -> None:
    at_bound = {
        **FIGURES,
        "frechet_distance": 2.5 * REFERENCE["frechet_distance"],
        "recall": 0.9 * REFERENCE["recall"],
        "legible": 0.95 * REFERENCE["legible"],
        "class_shares": [0.8 * 0.1, 1.2 * 0.1] * 5,
        "nearest_distance_ratio": 0.95 * REFERENCE["nearest_distance_ratio"],
    }
    assert len(results({**EVALUATION, "figures": at_bound})["met"]) == 8
    for interval, result in (([0.79, 0.85], "missed, but perhaps by chance"), ([0.81, 0.83], "missed")):
        changes = {"figures": {**FIGURES, "recall": 0.82}, "intervals": {"recall": interval}}
        assert results({**EVALUATION, **changes})[result] == ["Recall"]


def test_the_pictures_are_those_that_the_measurement_says(handwritten: Handwritten, pictures: dict[str, Any]) -> None:
    images, labels = handwritten
    grid = pixels(pictures["by_digit"]["png"])
    for digit in range(10):
        for row, seed in enumerate(np.flatnonzero(labels[:200] == digit)[:PER_DIGIT]):
            tile = grid[28 * row : 28 * (row + 1), 28 * digit : 28 * (digit + 1)]
            np.testing.assert_array_equal(tile, images[seed])
    assert pictures["least_legible"][0]["seed"] == 0
    # The distances rise from seed to seed: the nearest of a digit is its first sample.
    first = [np.flatnonzero(labels[:200] == digit)[0] for digit in range(10)]
    assert [each["seed"] for each in pictures["nearest"][:COMPARED]] == first
    assert len({each["seed"] for each in pictures["nearest"]}) == 2 * COMPARED
    np.testing.assert_array_equal(pixels(pictures["nearest"][0]["png"]), images[first[0]])
    assert len(pictures["interpolations"]) == 5
    assert json.loads(json.dumps(pictures)) == pictures


def test_a_digit_that_does_not_occur_leaves_its_column_black(handwritten: Handwritten) -> None:
    pictures = chosen(handwritten, 100, without=4)
    assert pictures["by_digit"]["absent"] == [4]
    assert not pixels(pictures["by_digit"]["png"])[:, 4 * 28 : 5 * 28].any()
    assert len({each["seed"] for each in pictures["nearest"]}) == 2 * COMPARED
    assert len(pictures["interpolations"]) == 4
