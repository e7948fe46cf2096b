"""The report: one page with everything in it, from a run as a run leaves it, and from whatever is there of it."""

import base64
import json
import re
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.support.commands import digitgan
from training import samples
from training.metrics import MetricsLog
from training.networks import build_generator
from training.report import Pictures, choose, read_evaluation, write_report
from training.report.criteria import CRITERIA, conclusion, outcomes
from training.report.pictures import NO_SEED, PER_DIGIT, nearest_images

Images = NDArray[np.uint8]
Handwritten = tuple[Images, NDArray[np.uint8]]
SECTIONS = ("figures", "story", "digits", "walks", "nearest", "least-legible", "score", "how", "provenance")
FIGURES: dict[str, Any] = {
    "frechet_distance": 4.0,
    "kernel_distance": 0.0012,
    "kernel_distance_error": 0.0001,
    "precision": 0.9,
    "recall": 0.5,
    "density": 0.95,
    "coverage": 0.9,
    "digit_score": 9.7,
    "legible": 0.961,
    "class_shares": [0.1] * 10,
    "class_kl": 0.001,
    "nearest_distance": 5.5,
    "nearest_distance_ratio": 1.01,
    "duplicates": 0.0,
}
FLOOR = {**FIGURES, "frechet_distance": 2.0, "precision": 0.93, "recall": 0.93, "density": 1.0, "coverage": 0.95}
SCORE: dict[str, Any] = {
    "images": {"real": 20, "fake": 20},
    "auc": 0.97,
    "accuracy": 0.91,
    "expected_calibration_error": 0.05,
    "reliability": [
        {"probability": 0.1, "share_real": 0.12, "share": 0.5, "images": 20},
        {"probability": 0.9, "share_real": 0.88, "share": 0.5, "images": 20},
    ],
    "kinds": {"noise": 1.0, "blank": 0.98, "flipped": 0.6},
    "logits": {"edges": [-1.0, 0.0, 1.0], "real": [5, 15], "fake": [18, 2]},
}
EVALUATION: dict[str, Any] = {
    "images": 200,
    "reference": "test",
    "source": {"kind": "run", "version": 1, "preset": "<best>", "steps": 1000},
    "classifier": {"version": 1, "accuracy": 0.996},
    "figures": FIGURES,
    "floor": FLOOR,
    "deck": {**FIGURES, "frechet_distance": 300.0, "legible": 0.18, "steps": 940},
    "score": SCORE,
}


class Page(HTMLParser):
    """What a test asks of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.open: list[str] = []
        self.words = ""
        self.feed(path.read_text("utf-8"))
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def pictures(handwritten: Handwritten) -> Pictures:
    """Pictures of an untrained generator's walks, and of handwritten digits in the place of its samples."""
    images, labels = handwritten
    network = build_generator()

    def generate(noise: NDArray[np.float32]) -> Images:
        return samples.pixels(np.asarray(network(noise, training=False)))

    confidences = np.linspace(1, 0.2, 200, dtype=np.float32)
    distances = np.linspace(9, 3, 200)
    return choose(images[:200], labels[:200], confidences, distances, images[200:], generate)


@pytest.fixture(scope="module")
def run(handwritten: Handwritten, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory with everything that a run leaves."""
    run = tmp_path_factory.mktemp("runs") / "<run>"
    (run / "samples").mkdir(parents=True)
    for step, images in ((1, handwritten[0][64:128]), (1000, handwritten[0][:64])):
        grid = samples.enlarged(samples.sheet(images, 8))
        grid.save(run / "samples" / f"step-{step:06}.png")
    log = MetricsLog(run, 0)
    for step in range(10, 1001, 10):
        log.append(step, step / 100, [0.9, 1.2, 0.7, 0.6])
    rows = [{"step": step, "epoch": step / 100, **FIGURES, "frechet_distance": 4e3 / step} for step in (200, 600, 1000)]
    (run / "evaluations.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = {"preset": "best", "recipe": {"loss": "relativistic", "batch_size": 64}, "data": "/home/me/mnist.npz"}
    (run / "config.json").write_text(json.dumps(config))
    return run


def sure(images: Images) -> NDArray[np.float64]:
    """Reads every image as a certain 3."""
    return np.tile(np.eye(10)[3], (len(images), 1))


@pytest.fixture(scope="module")
def page(run: Path, pictures: Pictures) -> Page:
    return Page(write_report(EVALUATION, run, run=run, pictures=pictures, classify=sure))


def test_the_page_needs_nothing_else(page: Page) -> None:
    for tag, attributes in page.elements:
        for name in ("src", "href", "srcset", "action"):
            assert attributes.get(name, "#").startswith(("#", "data:image/png;base64,")), (tag, name)
    assert not page.all("script")
    assert not page.all("link")
    assert page.open == []


def test_every_picture_is_one_and_says_what_it_shows(page: Page) -> None:
    images = page.all("img")
    # Time-lapse, 2 milestones, 4 plots, digits, 5 walks, 20 × 2 neighbours, 18 illegible ones.
    assert len(images) == 1 + 2 + 4 + 1 + 5 + 40 + 18
    for attributes in images:
        assert len(attributes["alt"]) > 10
        with Image.open(BytesIO(base64.b64decode(attributes["src"].partition(",")[2]))) as picture:
            picture.load()


def test_every_section_is_there_and_can_be_reached(page: Page) -> None:
    assert tuple(attributes["id"] for attributes in page.all("section")) == SECTIONS
    assert [attributes["href"] for attributes in page.all("a")] == [f"#{name}" for name in SECTIONS]
    assert "makes it." not in page.words
    for attributes in page.all("th"):
        assert attributes["scope"] in ("row", "col")


def test_the_figures_are_held_against_their_targets(page: Page) -> None:
    assert "7 of 8 targets are met; missed: Recall." in page.words
    assert "The Fréchet distance is 4.00, 2.0 times what real digits have among themselves" in page.words
    assert "The course deck's own recipe after 940 steps stands at 300.0, with 18 % legible." in page.words
    assert "Deck, 940 steps" in page.words
    # Recall; the calibration error and the blank images.
    assert page.words.count("✗") == 3


def test_the_story_is_told_and_written_into_the_run(page: Page, run: Path) -> None:
    assert "1,000mature, 100 % legible" in re.sub(r"\s+(?=mature)", "", page.words)
    assert "Was it stable?" in page.words
    assert "it would be 0.693 if the discriminator could only guess" in page.words
    assert "rightly, by the middle of its logits; guessing gives 50 %" in page.words
    assert "from step 600 on, it still went from 6.67 to 4.00" in page.words
    assert "It was smallest at step 1,000, 4.00: that generator is the one served." in page.words
    assert "Dotted: the floor of the evaluation above, with 200 images against the test images" in page.words
    assert {"story.png", "milestones.png", "metrics.png", "story.json"} <= {path.name for path in run.iterdir()}


def test_texts_from_outside_are_escaped_and_paths_kept_back(page: Page, run: Path) -> None:
    html = (run / "report.html").read_text("utf-8")
    assert "&lt;best&gt;" in html
    assert "&lt;run&gt;" in html
    assert "<best>" not in html
    assert "<run>" not in html
    assert "mnist.npz" in page.words
    assert "/home/me" not in html


def test_light_dark_and_narrow_are_provided_for(page: Page, run: Path) -> None:
    html = (run / "report.html").read_text("utf-8")
    assert "prefers-color-scheme: dark" in html
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in page.all("meta")
    assert page.all("html") == [{"lang": "en"}]


def test_what_is_missing_is_told_with_the_command_that_makes_it(tmp_path: Path) -> None:
    page = Page(write_report(None, tmp_path))
    assert tuple(attributes["id"] for attributes in page.all("section")) == SECTIONS
    assert page.all("img") == []
    assert page.words.count("digitgan evaluate RUN") >= 6
    assert "digitgan report RUN" in page.words
    assert "Not evaluated yet" in page.words


def test_models_without_floor_deck_and_score_can_be_reported(tmp_path: Path, pictures: Pictures) -> None:
    evaluation = {**EVALUATION, "floor": None, "deck": None, "score": None}
    page = Page(write_report(evaluation, tmp_path, pictures=pictures))
    assert "All 3 targets are met." in page.words
    assert "The score is missing" in page.words


def test_a_figure_that_is_at_its_bound_meets_its_target() -> None:
    at_bound = {
        **FIGURES,
        "frechet_distance": 2.5 * FLOOR["frechet_distance"],
        "recall": 0.9 * FLOOR["recall"],
        "legible": 0.95,
        "class_shares": [0.08, 0.12] * 5,
        "nearest_distance_ratio": 1.0,
    }
    assert all(outcome.met for outcome in outcomes(at_bound, FLOOR))
    assert conclusion({**EVALUATION, "figures": at_bound}).startswith("All 8 targets are met.")


def test_every_figure_of_an_evaluation_has_a_name_and_a_source() -> None:
    assert {criterion.key for criterion in CRITERIA} == FIGURES.keys() - {"kernel_distance_error"}
    for criterion in CRITERIA:
        assert criterion.how.endswith(".")
        assert criterion.show(FIGURES)


def test_pictures_come_back_from_disk_as_they_were(pictures: Pictures, tmp_path: Path) -> None:
    pictures.write(tmp_path)
    found = Pictures.read(tmp_path)
    assert found is not None
    for name, array in vars(pictures).items():
        np.testing.assert_array_equal(getattr(found, name), array)
        assert getattr(found, name).dtype == array.dtype
    assert Pictures.read(tmp_path / "elsewhere") is None


def test_the_digits_are_the_first_that_read_as_each(handwritten: Handwritten, pictures: Pictures) -> None:
    images, labels = handwritten
    for digit in range(10):
        seeds = np.flatnonzero(labels[:200] == digit)[:PER_DIGIT]
        np.testing.assert_array_equal(pictures.by_digit_seeds[digit], seeds)
        np.testing.assert_array_equal(pictures.by_digit[digit], images[seeds])
    assert pictures.least_legible_seeds[0] == 199
    # The distances fall from seed to seed: the nearest of a digit is its last sample.
    last = [np.flatnonzero(labels[:200] == digit)[-1] for digit in range(10)]
    np.testing.assert_array_equal(pictures.nearest_seeds[:10], last)
    assert len(np.unique(pictures.nearest_seeds)) == 20


def test_a_digit_that_is_never_made_leaves_its_column_black(handwritten: Handwritten, tmp_path: Path) -> None:
    images, labels = handwritten
    others = labels != 4
    chosen = choose(images[others][:100], labels[others][:100], np.ones(100), np.ones(100), images)
    assert (chosen.by_digit_seeds[4] == NO_SEED).all()
    assert not chosen.by_digit[4].any()
    assert len(np.unique(chosen.nearest_seeds)) == 20
    page = Page(write_report(EVALUATION, tmp_path, pictures=chosen))
    assert "Nothing reads as 4." in page.words
    assert "There is no walk" in page.words


def test_the_nearest_images_are_those_that_a_slow_search_finds(handwritten: Handwritten) -> None:
    images = handwritten[0]
    found, distances = nearest_images(images[:5], images[3:400], 3)
    for image, indices, row in zip(images[:5], found, distances, strict=True):
        slow = np.sqrt((((images[3:400].astype(float) - image) / 255) ** 2).sum((1, 2)))
        np.testing.assert_allclose(row, np.sort(slow)[:3], rtol=1e-5)
        np.testing.assert_allclose(slow[indices], row, rtol=1e-5)
    assert distances[3, 0] == 0


def test_the_command_writes_what_there_is(run: Path, pictures: Pictures) -> None:
    (run / "evaluation.json").write_text(json.dumps(EVALUATION))
    pictures.write(run)
    done = digitgan("report", run, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"The report: {run / 'report.html'}\n"
    page = Page(run / "report.html")
    assert "7 of 8 targets are met" in page.words
    assert "makes it." not in page.words


@pytest.mark.parametrize(
    ("content", "told"), [(None, "holds no run"), ("[1", "evaluation.json can't be read"), ("[1]", "evaluation.json")]
)
def test_a_mistake_is_told_in_a_sentence(tmp_path: Path, content: str | None, told: str) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text("{}")
        (tmp_path / "evaluation.json").write_text(content)
        with pytest.raises(ValueError, match=told):
            read_evaluation(tmp_path)
    done = digitgan("report", tmp_path, check=False)
    assert done.returncode == 2
    assert told in done.stderr
    assert "Traceback" not in done.stderr
