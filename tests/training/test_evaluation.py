"""An evaluation separates real digits from others, and always gives the same figures."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from serving.contract import GENERATOR, MODEL_CARD
from serving.errors import UserError
from serving.pretrained import MODELS_DIR
from serving.versions.model_card import CardError, read_card, verify, write_card
from tests.support.commands import digitgan_here
from tests.support.pretrained import VERSIONS
from training.data import Dataset
from training.evaluation import job
from training.evaluation.classifier import newest_classifier
from training.evaluation.evaluator import Evaluator
from training.evaluation.figures import MEASURES
from training.evaluation.source import Source
from training.evaluation.statistics import class_shares
from training.report.criteria import results

FIGURES = [each.key for each in MEASURES]
IMAGES = 150
VERSION = f"{GENERATOR}/{VERSIONS[GENERATOR]}"


@pytest.fixture(scope="module")
def evaluator(dataset: Dataset) -> Evaluator:
    return Evaluator(newest_classifier(), dataset.x_test, dataset.y_test, dataset.x_train)


def test_real_digits_pass_for_real_and_noise_does_not(evaluator: Evaluator, dataset: Dataset) -> None:
    found = evaluator.measure_real(IMAGES)
    real = found["figures"]
    assert real.keys() == found["intervals"].keys(), "each figure has an interval"
    noise = evaluator.measure(np.random.default_rng(0).integers(0, 256, (IMAGES, 28, 28), np.uint8)).figures
    assert list(real) == list(noise) == FIGURES
    assert len(FIGURES) == 13
    assert noise["frechet_distance"] > 10 * real["frechet_distance"]
    assert noise["kernel_distance"] > 10 * abs(real["kernel_distance"])
    assert noise["precision"] < 0.1 < 0.6 < real["precision"]
    assert noise["coverage"] < 0.1 < 0.6 < real["coverage"]
    assert noise["digit_score"] < 3 < 7 < real["digit_score"]
    assert noise["nearest_distance_ratio"] > 1.5
    assert real["nearest_distance_ratio"] == pytest.approx(1, abs=0.2)
    assert sum(real["class_shares"]) == pytest.approx(1)


class Pooled:
    """Sees a 28×28 image as its 16 means over 7×7 pixels, and knows nothing of digits."""

    def predict(self, images: NDArray[np.uint8]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        features = images.reshape(-1, 4, 7, 4, 7).mean((2, 4)).reshape(-1, 16)
        return features, features[:, :10] / features[:, :10].sum(1, keepdims=True)


def test_the_reference_counts_each_image_of_disjoint_samples_once(dataset: Dataset) -> None:
    """One sample of MNIST alone can be 20 % nearer to the test images than five are in the mean."""
    images = dataset.x_train[: 5 * IMAGES]
    evaluator = Evaluator(Pooled(), dataset.x_test, dataset.y_test, images)  # type: ignore[arg-type]
    shares = evaluator.measure_real(IMAGES)["figures"]["class_shares"]
    assert shares == pytest.approx(class_shares(Pooled().predict(images)[1].argmax(1)))


def test_the_intervals_are_as_wide_as_the_figures_vary(dataset: Dataset) -> None:
    """Between disjoint samples of real digits; a 95 % interval is 4.5 standard errors wide with ten groups."""
    evaluator = Evaluator(Pooled(), dataset.x_test, dataset.y_test, dataset.x_train[1200:])  # type: ignore[arg-type]
    found = [evaluator.measure(dataset.x_train[k:1200:8]) for k in range(8)]
    for name in ("frechet_distance", "precision", "density", "digit_score", "nearest_distance"):
        spread = np.std([each.figures[name] for each in found], ddof=1)
        width = np.mean([each.intervals[name][1] - each.intervals[name][0] for each in found])
        assert 0.4 < width / (4.5 * spread) < 2.5, name
        assert all(each.intervals[name][0] < each.figures[name] < each.intervals[name][1] for each in found)


def test_real_digits_miss_no_target(dataset: Dataset) -> None:
    """They are measured in place of generated ones: not in the reference, and not among the training images."""
    order = np.random.default_rng(0).permutation(len(dataset.x_train))
    evaluator = Evaluator(newest_classifier(), dataset.x_test, dataset.y_test, dataset.x_train[order[:750]])
    real = evaluator.measure_real(IMAGES)
    for rows in order[750:].reshape(-1, IMAGES):
        measured = evaluator.measure(dataset.x_train[rows])
        found = results(
            {
                "figures": measured.figures,
                "intervals": measured.intervals,
                "reference": real["figures"],
                "reference_intervals": real["intervals"],
            }
        )
        assert found["missed"] == []
        assert len(found["met"]) >= 6


def test_memorised_and_repeated_images_are_told(evaluator: Evaluator, dataset: Dataset) -> None:
    learnt = np.concatenate([dataset.x_train[:100], dataset.x_train[:50]])
    measured = evaluator.measure(learnt)
    assert measured.figures["nearest_distance"] == measured.figures["nearest_distance_ratio"] == 0
    assert measured.figures["duplicates"] == pytest.approx(100 / 150)


def test_a_light_evaluation_is_the_same_without_the_search(evaluator: Evaluator, dataset: Dataset) -> None:
    """Without one of the digits in the reference, what needs all ten is left out too."""
    kept = dataset.y_test != 4
    reference = (newest_classifier(), dataset.x_test[kept], dataset.y_test[kept], dataset.x_train)
    light, full = (Evaluator(*reference, light=light).measure(dataset.x_test[:100]).figures for light in (True, False))
    assert full.keys() - light.keys() == {"nearest_distance", "nearest_distance_ratio"}
    assert light == {key: full[key] for key in light}
    assert set(FIGURES) - full.keys() == {"class_kl"}
    with pytest.raises(UserError, match="19 images are too few to be measured; at least 20 are needed"):
        evaluator.measure(dataset.x_test[:19])


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the shipped models, to be written into, not evaluated yet."""
    models = shutil.copytree(MODELS_DIR, tmp_path_factory.mktemp("evaluated") / "models")
    card = read_card(models / VERSION)
    del card["evaluation"]
    (models / VERSION / MODEL_CARD).write_text(json.dumps(card))
    return models


@pytest.fixture(scope="module")
def evaluated(models: Path, digits_npz: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out") / "evaluation"
    done = digitgan_here(
        "evaluate", models, "--data", digits_npz, "--images", str(IMAGES), "--out", out, "--classifier", models
    )
    assert "Loading TensorFlow …" in done.stderr
    assert "Fréchet distance" in done.stdout
    assert "…" not in done.stdout, "a figure is cut off"
    assert f"The report: {out / 'report.html'}" in done.stdout.replace("\n", "")
    return out


def test_the_command_writes_the_figures_a_report_and_the_model_card(evaluated: Path, models: Path) -> None:
    written = json.loads((evaluated / "evaluation.json").read_text())
    assert (written["images"], written["compared_with"]) == (IMAGES, "test")
    assert list(written["figures"]) == list(written["reference"]) == FIGURES
    card, shipped = (read_card(base / VERSION) for base in (models, MODELS_DIR))
    assert written["source"] == {
        "kind": "models",
        "version": VERSIONS[GENERATOR],
        "preset": card["training"]["preset"],
        "steps": card["training"]["steps"],
    }
    assert written["classifier"]["accuracy"] > 0.994
    assert written["score"]["images"] == {"real": 297, "fake": IMAGES}
    report = (evaluated / "report.html").read_text()
    assert f"{written['figures']['frechet_distance']:.2f}" in report
    verify(models / VERSION)
    del written["score"]
    assert card["evaluation"] == written
    assert card["files"] == shipped["files"]
    assert card["training"] == shipped["training"]


def test_the_same_models_get_the_same_figures_twice(evaluated: Path, models: Path, dataset: Dataset) -> None:
    again, *_ = job.evaluate(Source(models), dataset, newest_classifier(), IMAGES)
    assert json.loads(json.dumps(again)) == json.loads((evaluated / "evaluation.json").read_text())


def test_a_card_keeps_the_evaluation_of_more_images_and_its_own_hashes(tmp_path: Path) -> None:
    def evaluation(images: int) -> dict[str, Any]:
        return {"images": images, "figures": {}, "score": None}

    (tmp_path / "saved_model.pb").write_bytes(b"model")
    write_card(tmp_path, {"model": GENERATOR})
    before = tmp_path.stat().st_mtime_ns
    assert job.update_card(tmp_path, evaluation(500))
    assert tmp_path.stat().st_mtime_ns == before  # A model server would load the version anew otherwise.
    assert not job.update_card(tmp_path, evaluation(499))
    assert read_card(tmp_path)["evaluation"] == {"images": 500, "figures": {}}
    (tmp_path / "saved_model.pb").write_bytes(b"other")
    with pytest.raises(CardError, match="SHA-256"):
        job.update_card(tmp_path, evaluation(500))


def test_a_directory_without_models_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match=r"models holds no generator/<version>\. .* digitgan export"):
        Source(tmp_path)
