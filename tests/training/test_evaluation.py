"""An evaluation tells real digits from others, says the same twice, and finds its digits wherever they are."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.service import digitgan_up
from serving.contract import GENERATOR, MODEL_CARD
from serving.model_card import CardError, read_card, verify, write_card
from serving.noise import noise_from_seeds
from serving.pretrained import MODELS_DIR
from tests.pixels import assert_same_pixels
from tests.support.commands import digitgan
from training.data import Dataset, load
from training.evaluation import job
from training.evaluation.evaluator import EvaluationError, Evaluator
from training.evaluation.features import Judge
from training.evaluation.sources import SourceError, open_source

FIGURES = [
    "frechet_distance",
    "kernel_distance",
    "kernel_distance_error",
    "precision",
    "recall",
    "density",
    "coverage",
    "digit_score",
    "legible",
    "class_shares",
    "class_kl",
    "nearest_distance",
    "nearest_distance_ratio",
    "duplicates",
]
IMAGES = 300


@pytest.fixture(scope="module")
def dataset(digits_npz: Path) -> Dataset:
    return load(digits_npz)


@pytest.fixture(scope="module")
def evaluator(dataset: Dataset) -> Evaluator:
    return Evaluator(Judge.newest(), dataset.x_test, dataset.y_test, dataset.x_train)


def test_real_digits_pass_for_real_and_noise_does_not(evaluator: Evaluator, dataset: Dataset) -> None:
    floor = evaluator.floor(IMAGES).figures
    noise = evaluator.figures(np.random.default_rng(0).integers(0, 256, (IMAGES, 28, 28), np.uint8))
    assert list(floor) == list(noise) == FIGURES
    assert noise["frechet_distance"] > 10 * floor["frechet_distance"]
    assert noise["kernel_distance"] > 10 * max(floor["kernel_distance"], floor["kernel_distance_error"])
    assert noise["precision"] < 0.1 < 0.6 < floor["precision"]
    assert noise["coverage"] < 0.1 < 0.6 < floor["coverage"]
    assert noise["digit_score"] < 3 < 7 < floor["digit_score"]
    assert noise["nearest_distance_ratio"] > 1.5
    assert floor["nearest_distance_ratio"] == pytest.approx(1, abs=0.2)
    assert sum(floor["class_shares"]) == pytest.approx(1)


def test_memorised_and_repeated_images_are_told(evaluator: Evaluator, dataset: Dataset) -> None:
    learnt = np.concatenate([dataset.x_train[:100], dataset.x_train[:50]])
    measured = evaluator.measure(learnt)
    assert measured.figures["nearest_distance"] == measured.figures["nearest_distance_ratio"] == 0
    assert measured.figures["duplicates"] == pytest.approx(100 / 150)
    assert measured.distances is not None
    assert not measured.distances.any()


def test_a_light_evaluation_is_the_same_without_the_search(evaluator: Evaluator, dataset: Dataset) -> None:
    light = evaluator.figures(dataset.x_test[:100], light=True)
    full = evaluator.figures(dataset.x_test[:100])
    assert full.keys() - light.keys() == {"nearest_distance", "nearest_distance_ratio"}
    assert light == {key: full[key] for key in light}


def test_too_few_images_and_a_missing_digit_are_named(evaluator: Evaluator, dataset: Dataset) -> None:
    with pytest.raises(EvaluationError, match="images: 19 are too few, 20 are needed"):
        evaluator.figures(dataset.x_test[:19])
    kept = dataset.y_test != 4
    with pytest.raises(EvaluationError, match=r"there is no 4 among the \d+ reference images"):
        Evaluator(Judge.newest(), dataset.x_test[kept], dataset.y_test[kept], dataset.x_train)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the shipped models, to be written into, not evaluated yet."""
    models = shutil.copytree(MODELS_DIR, tmp_path_factory.mktemp("evaluated") / "models")
    version, card = newest_card(models)
    del card["evaluation"]
    (version / MODEL_CARD).write_text(json.dumps(card))
    return models


def newest_card(models: Path) -> tuple[Path, dict[str, Any]]:
    version = max((models / GENERATOR).iterdir(), key=lambda path: int(path.name))
    return version, read_card(version)


@pytest.fixture(scope="module")
def evaluated(models: Path, digits_npz: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out") / "evaluation"
    done = digitgan("evaluate", models, "--data", digits_npz, "--images", str(IMAGES), "--out", out)
    assert "Fréchet distance" in done.stdout
    assert f"The report: {out / 'report.html'}" in done.stdout.replace("\n", "")
    return out


def test_the_command_writes_the_figures_and_a_report(evaluated: Path, models: Path) -> None:
    told = json.loads((evaluated / "evaluation.json").read_text())
    assert (told["images"], told["reference"]) == (IMAGES, "test")
    assert list(told["figures"]) == list(told["floor"]) == FIGURES
    version, card = newest_card(models)
    assert told["source"] == {
        "kind": "models",
        "version": int(version.name),
        "preset": card["training"]["preset"],
        "steps": card["training"]["steps"],
    }
    assert told["classifier"]["accuracy"] > 0.994
    assert 0 <= told["score"]["auc"] <= 1
    assert told["score"]["images"] == {"real": 297, "fake": IMAGES}
    report = (evaluated / "report.html").read_text()
    assert f"{told['figures']['frechet_distance']:.2f}" in report


def test_the_model_card_tells_the_figures_and_still_names_every_file(evaluated: Path, models: Path) -> None:
    version, card = newest_card(models)
    verify(version)
    told = json.loads((evaluated / "evaluation.json").read_text())
    del told["score"]
    assert card["evaluation"] == told
    shipped = read_card(MODELS_DIR / GENERATOR / version.name)
    assert card["files"] == shipped["files"]
    assert card["training"] == shipped["training"]


def test_the_same_models_get_the_same_figures_twice(evaluated: Path, models: Path, dataset: Dataset) -> None:
    with open_source(str(models)) as source:
        again = job.evaluate(source, dataset, Judge.newest(), IMAGES)
    assert json.loads(json.dumps(again.content)) == json.loads((evaluated / "evaluation.json").read_text())


def test_a_card_keeps_the_evaluation_of_more_images_and_its_own_hashes(tmp_path: Path) -> None:
    def evaluation(images: int) -> job.Evaluation:
        return job.Evaluation({"images": images, "figures": {}, "score": None}, None)  # type: ignore[arg-type]

    (tmp_path / "saved_model.pb").write_bytes(b"model")
    write_card(tmp_path, {"model": GENERATOR})
    before = tmp_path.stat().st_mtime_ns
    assert job.tell_card(tmp_path, evaluation(500))
    assert tmp_path.stat().st_mtime_ns == before  # A model server would load the version anew otherwise.
    assert not job.tell_card(tmp_path, evaluation(499))
    assert read_card(tmp_path)["evaluation"] == {"images": 500, "figures": {}}
    (tmp_path / "saved_model.pb").write_bytes(b"other")
    with pytest.raises(CardError, match="SHA-256"):
        job.tell_card(tmp_path, evaluation(500))


def test_the_deck_stands_beside_the_nearest_number_of_steps_below(tmp_path: Path) -> None:
    path = tmp_path / "deck.json"
    assert job.deck_figures(5000, path) is None
    path.write_text(json.dumps({"steps": {"1000": {"legible": 0.1}, "3000": {"legible": 0.2}}}))
    assert job.deck_figures(5000, path) == {"legible": 0.2, "steps": 3000}
    assert job.deck_figures(3000, path) == {"legible": 0.2, "steps": 3000}
    assert job.deck_figures(2999, path) == {"legible": 0.1, "steps": 1000}
    assert job.deck_figures(999, path) is None
    assert job.deck_figures(None, path) is None


def test_a_source_that_is_none_is_told(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"is no run directory .* no directory of models"), open_source(str(tmp_path)):
        pass
    with pytest.raises(SourceError, match="doesn't answer"), open_source("http://127.0.0.1:1"):
        pass


def test_a_run_without_models_stands_for_its_checkpoint(digits_npz: Path, tmp_path: Path) -> None:
    from training import job as training_job
    from training import loop
    from training.config import TrainingConfig
    from training.devices import strategy
    from training.samples import pixels

    options = training_job.Options(
        run=tmp_path / "run", resume=False, data=digits_npz, preset=None, epochs=None, steps=1,
        recipe={"batch_size": 8, "feature_critics": 0.0}, settings={},
    )  # fmt: skip
    config, data = training_job.resolve(options)
    loop.train(config, data, options.run, strategy())
    with open_source(str(options.run)) as source:
        assert source.facts == {"kind": "checkpoint", "version": None, "preset": config.preset, "steps": 1}
        assert source.run == options.run
        assert source.score is not None
        images = source.images(5)
        logits, probabilities = source.score(images)
    trainer = loop.restore(TrainingConfig.read(options.run), options.run, strategy())
    expected = pixels(np.asarray(trainer.averaged_generator()(noise_from_seeds(range(5)), training=False)))
    np.testing.assert_array_equal(images, expected[..., 0])
    np.testing.assert_allclose(probabilities, 1 / (1 + np.exp(-logits)), rtol=1e-5)


def test_a_gateways_digits_are_its_models() -> None:
    with (
        digitgan_up() as (_, client),
        open_source(str(client.base_url)) as remote,
        open_source(str(MODELS_DIR)) as local,
    ):
        assert remote.facts == {**local.facts, "kind": "url"}
        assert remote.score is None
        assert_same_pixels(remote.images(300), local.images(300))
        noise = noise_from_seeds(range(4))
        assert_same_pixels(remote.generate(noise), local.generate(noise))
