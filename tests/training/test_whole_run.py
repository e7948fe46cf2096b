"""Everything on, on 2,000 images for three epochs: train, export, evaluate, and a report with every plot."""

import hashlib
import json
import re
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from serving.contract import CLASSIFIER, DISCRIMINATOR, GENERATOR, STORY, STORY_BYTES
from serving.model_card import read_card
from tests.training.test_train import digitgan
from training.story import STAGES

PICTURED = ("story", "digits", "walks", "nearest", "least-legible", "score")


@pytest.fixture(scope="module")
def run(handwritten: tuple[NDArray[np.uint8], NDArray[np.uint8]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An evaluated run of the preset ``best``."""
    images, labels = handwritten
    place = tmp_path_factory.mktemp("whole")
    moved = np.roll(images[:500], 1, axis=2)  # There are fewer than 2,297 of them.
    np.savez(
        place / "digits.npz",
        x_train=np.concatenate([images[:1500], moved]),
        y_train=np.concatenate([labels[:1500], labels[:500]]),
        x_test=images[1500:],
        y_test=labels[1500:],
    )
    data = ("--data", place / "digits.npz")
    digitgan(
        "train", *data, "--run", place / "run", "--epochs", "3", "--batch-size", "64", "--evaluate-every", "10",
        "--log-every", "1", "--detector-steps", "60", "--index-seeds", "1500",
    )  # fmt: skip
    digitgan("evaluate", place / "run", *data, "--images", "600")
    return place / "run"


def test_it_is_measured_on_the_way_and_at_the_end(run: Path) -> None:
    on_the_way = [json.loads(line) for line in (run / "evaluations.jsonl").read_text().splitlines()]
    assert [line["step"] for line in on_the_way] == [10, 20, 30, 40, 50, 60, 70, 80, 86]
    evaluation = json.loads((run / "evaluation.json").read_text())
    assert evaluation["images"] == 600
    assert set(evaluation["figures"]) == set(evaluation["floor"])
    assert evaluation["figures"]["frechet_distance"] > evaluation["floor"]["frechet_distance"]
    assert 0 <= evaluation["score"]["auc"] <= 1


def test_the_generator_that_did_best_is_published_with_its_index(run: Path) -> None:
    on_the_way = [json.loads(line) for line in (run / "evaluations.jsonl").read_text().splitlines()]
    best = min(on_the_way, key=lambda line: line["frechet_distance"])
    cards = {name: read_card(run / "models" / name / "1") for name in (GENERATOR, DISCRIMINATOR, CLASSIFIER)}
    chosen = cards[GENERATOR]["chosen"]
    if "average_of" in chosen:
        assert (chosen["from_step"], chosen["step"], chosen["average_of"]) == (50, 86, 5)
        assert chosen["validation"] < best["frechet_distance"]
    else:
        assert chosen["step"] == best["step"]
        assert chosen["validation"] == pytest.approx(best["frechet_distance"], abs=1e-4)
    assert sum(cards[GENERATOR]["seed_index"]["digits"]) == 1500
    assert cards[GENERATOR]["evaluation"]["figures"]["legible"] >= 0
    assert cards[DISCRIMINATOR]["detector"]["test"]["auc"] >= 0.5


def test_the_generator_tells_the_story_of_the_run(run: Path) -> None:
    import tensorflow as tf

    served = tf.saved_model.load(str(run / "models" / GENERATOR / "1")).signatures[STORY]
    answer = served(tf.range(20, dtype=tf.int64))
    content = answer[STORY].numpy().tobytes()[: int(answer[STORY_BYTES][0])]
    told = json.loads(content)
    card = read_card(run / "models" / GENERATOR / "1")
    assert hashlib.sha256(content).hexdigest() == card["story"]["sha256"]
    assert [each["step"] for each in told["milestones"]] == [1, 86]
    assert {each["stage"] for each in told["milestones"]} <= {"noise", *(name for name, _ in STAGES)}
    assert told["run"]["chosen_step"] == card["chosen"]["step"]
    assert told["log"]["step"][-1] == 86
    assert told["stability"]["words"]


def test_the_report_has_every_plot(run: Path) -> None:
    page = (run / "report.html").read_text("utf-8")
    for name in PICTURED:
        section = re.search(f'<section id="{name}">.*?</section>', page, re.DOTALL)
        assert section, f"there is no section {name}"
        assert "<img" in section.group(), f"{name} has no picture"
    for picture in ("story.png", "milestones.png", "losses.png", "metrics.png"):
        assert (run / picture).stat().st_size > 5000
