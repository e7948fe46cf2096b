"""The story as it is served: small, complete, and what the run says."""

import base64
import json
import math
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from serving.contract import STORY_PAGE
from tests.training.test_story import Network
from training import samples
from training.config import PRESETS, TrainingConfig
from training.metrics import MetricsLog
from training.served_story import POINTS, document, facts, graph, thinned
from training.story import tell


@pytest.fixture
def run(handwritten: tuple[NDArray[np.uint8], Any], tmp_path: Path) -> Path:
    (tmp_path / "samples").mkdir()
    for step in (1, 1000):
        samples.write_grid(
            tmp_path / "samples" / f"step-{step:06}.png", Network(handwritten[0][:64] // (2 - step // 1000))
        )
    log = MetricsLog(tmp_path, 0)
    for step in range(1, 1001):
        log.append(step, step / 100, [0.9, 1.2, 0.7, 0.6])
    evaluation = {"step": 500, "epoch": 5.0, "frechet_distance": 80.0, "legible": math.nan, "floor": {"legible": 0.9}}
    (tmp_path / "evaluations.jsonl").write_text(json.dumps(evaluation) + "\n")
    return tmp_path


def test_the_document_tells_the_run(run: Path, handwritten: tuple[NDArray[np.uint8], Any]) -> None:
    config = TrainingConfig(
        preset="dcgan", recipe=PRESETS["dcgan"], steps=1000, images=1500, data="digits.npz", data_sha256="", seed=0
    )
    told = json.loads(document(run, config, tell(run), 500))
    assert told["run"]["chosen_step"] == 500
    assert [each["step"] for each in told["milestones"]] == [1, 1000]
    with Image.open(BytesIO(base64.b64decode(told["milestones"][1]["png"]))) as grid:
        assert grid.size == (224, 224)
        np.testing.assert_array_equal(np.asarray(grid)[28:56, :28], handwritten[0][8])
    assert told["guessing"] == {"generator_loss": 0.69315, "discriminator_loss": 1.3863}
    assert told["stability"]["state"] == "stable"
    assert told["stability"]["words"].startswith("Stable: ")
    assert told["evaluations"] == [{"step": 500, "epoch": 5.0, "frechet_distance": 80.0, "legible": None}]


def test_a_long_log_is_thinned_to_means_with_more_of_the_early_steps() -> None:
    names = ("generator_loss", "discriminator_loss", "accuracy_real", "accuracy_fake")
    rows = [{"step": step, **dict.fromkeys(names, float(step))} for step in range(1, 20_001)]
    log = thinned(rows)
    assert len(log["step"]) <= POINTS
    assert log["generator_loss"] == log["step"]  # The means are those of the same lines.
    steps = np.array(log["step"], np.float64)
    assert (np.diff(steps) > 0).all()
    assert (steps < 5000).sum() == pytest.approx(len(steps) / 2, rel=0.05)


def test_a_short_log_is_told_whole_and_a_diverged_one_with_gaps() -> None:
    rows = [
        {"step": step, "generator_loss": loss, "discriminator_loss": 1.0, "accuracy_real": 0.5, "accuracy_fake": 0.5}
        for step, loss in ((10, 0.5), (20, math.nan), (30, 0.25))
    ]
    assert thinned(rows)["generator_loss"] == [0.5, None, 0.25]
    assert thinned([])["step"] == []


@pytest.mark.parametrize("length", [1, STORY_PAGE, STORY_PAGE + 1])
def test_the_pages_are_the_story(length: int) -> None:
    story = bytes(np.random.default_rng(length).integers(1, 256, length, np.uint8))
    pages = graph(story)(np.array([0, 1, 2], np.int64))
    assert pages["story"].shape == (3, STORY_PAGE)
    wanted = -(-length // STORY_PAGE)
    assert pages["story"].numpy()[:wanted].tobytes()[:length] == story
    assert pages["story_bytes"].numpy().tolist() == [length] * 3
    assert facts(story)["bytes"] == length
