"""``digitgan train``: a run from its first step to its models and its report; stopped, resumed, published again."""

import hashlib
import json
import shlex
import shutil
import signal
import socket
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from numpy.typing import NDArray

from serving.contract import CLASSIFIER, DISCRIMINATOR, GENERATOR, IMAGES, STORY, STORY_BYTES
from serving.noise import noise_from_seeds
from serving.pretrained import MODELS_DIR
from serving.versions.model_card import read_card
from tests.support.commands import assert_float32, digitgan_here, stopped_after
from tests.support.pictures import Handwritten, save_npz
from tests.support.processes import free_port
from tests.training.test_export import outputs_of
from training.config import METRICS, ConfigError, TrainingConfig
from training.data import LEAST_HELD_OUT
from training.run.metrics import read_log

STEPS = 4
COUNT = 60
INDEXED = 300
ARGUMENTS = ("--seed", "5", "--set", "batch_size=4", "--set", "log_every=1", "--set", "evaluate_every=2")


@pytest.fixture(scope="module")
def data(handwritten: Handwritten, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Few images, so that the runs here and the training of their own classifier are short."""
    return save_npz(tmp_path_factory.mktemp("data") / "digits.npz", handwritten, COUNT)


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of ``best`` that tests only read, without feature discriminators: tests/slow/test_training.py has them."""
    run = tmp_path_factory.mktemp("runs") / "run"
    few = (*ARGUMENTS, "--set", "feature_weight=0", "--index-seeds", INDEXED)
    done = digitgan_here("train", "--data", data, "--run", run, "--steps", STEPS, *few)
    assert f"digitgan up --models {run / 'models'}" in done.stdout
    assert_float32()
    return run


@pytest.fixture(scope="module")
def evaluated(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    copy = shutil.copytree(run, tmp_path_factory.mktemp("evaluated") / "run")
    digitgan_here("evaluate", copy, "--images", "100")
    assert_float32()
    return copy


def state(run: Path) -> dict[str, NDArray[np.float32]]:
    reader = tf.train.load_checkpoint(tf.train.latest_checkpoint(str(run / "checkpoints")))
    names = [
        name for name in reader.get_variable_to_shape_map() if not name.startswith(("_CHECKPOINTABLE", "save_counter"))
    ]
    return {name: np.asarray(reader.get_tensor(name)) for name in names}


def assert_same_run(expected: Path, found: Path) -> None:
    """Passes when two runs have the same weights, optimiser states, logs and pictures, to the last bit."""
    variables, others = state(expected), state(found)
    assert variables.keys() == others.keys()
    for name, value in variables.items():
        assert value.tobytes() == others[name].tobytes(), f"{name} differs"
    for log in ("metrics.jsonl", "evaluations.jsonl"):
        if (expected / log).exists():
            assert (found / log).read_text() == (expected / log).read_text()
    for picture in (expected / "samples").iterdir():
        assert (found / "samples" / picture.name).read_bytes() == picture.read_bytes()


def test_a_run_explains_itself(run: Path, data: Path) -> None:
    config = TrainingConfig.read(run)
    assert (config.preset, config.data, config.classifier) == ("best", str(data), "own")
    assert (config.steps, config.recipe.batch_size, config.seed) == (STEPS, 4, 5)
    logged = read_log(run / "metrics.jsonl")
    assert [row["step"] for row in logged] == list(range(1, STEPS + 1))
    for row in logged:
        assert row.keys() == {"step", "epoch", *METRICS}
        assert 0 < row["generator_loss"] < 5
        assert 0 <= row["accuracy_real"] <= 1
    assert {path.name for path in (run / "samples").iterdir()} == {"step-000001.png", f"step-{STEPS:06}.png"}
    assert (run / "losses.png").stat().st_size > 10_000


def test_the_run_is_published(run: Path) -> None:
    cards = {name: read_card(run / "models" / name / "1") for name in (GENERATOR, DISCRIMINATOR, CLASSIFIER)}
    for name in (GENERATOR, DISCRIMINATOR):
        assert cards[name]["training"]["steps"] == STEPS
        assert cards[name]["training"]["images"] == COUNT - LEAST_HELD_OUT
        assert cards[name]["training"]["data"] == "digits.npz"
        assert cards[name]["last_interval"]["step"] == STEPS
    assert sum(cards[GENERATOR]["seed_index"]["digits"]) == INDEXED
    assert cards[DISCRIMINATOR]["detector"]["config"]["steps"] == STEPS
    assert (run / "models" / "models.config").exists()


def test_the_generator_that_did_best_is_published(run: Path) -> None:
    on_the_way = read_log(run / "evaluations.jsonl")
    assert [row["step"] for row in on_the_way] == [STEPS // 2, STEPS]
    best = min(on_the_way, key=lambda row: row["frechet_distance"])
    chosen = read_card(run / "models" / GENERATOR / "1")["chosen"]
    if "average_of" in chosen:
        assert (chosen["from_step"], chosen["step"], chosen["average_of"]) == (STEPS // 2, STEPS, 2)
        assert chosen["validation"] < best["frechet_distance"]
    else:
        assert chosen["step"] == best["step"]
        assert chosen["validation"] == pytest.approx(best["frechet_distance"], abs=1e-4)


def test_own_data_is_measured_and_labelled_by_a_classifier_of_its_own(run: Path, evaluated: Path) -> None:
    own, published = (read_card(run / base / CLASSIFIER / "1") for base in ("classifier", "models"))
    assert own["training"]["data_sha256"] == TrainingConfig.read(run).data_sha256
    assert published["files"] == own["files"]
    evaluation = json.loads((evaluated / "evaluation.json").read_text())
    assert evaluation["classifier"]["sha256"] == own["files"]["saved_model.pb"]["sha256"]
    assert evaluation["images"] == 100
    assert evaluation["figures"]["frechet_distance"] > evaluation["reference"]["frechet_distance"]


def test_the_generator_tells_the_story_of_the_run(run: Path) -> None:
    answer = outputs_of(run / "models" / GENERATOR / "1", STORY, pages=np.arange(20))
    content = answer[STORY].tobytes()[: int(answer[STORY_BYTES][0])]
    document = json.loads(content)
    card = read_card(run / "models" / GENERATOR / "1")
    assert hashlib.sha256(content).hexdigest() == card["story"]["sha256"]
    assert [each["step"] for each in document["milestones"]] == [1, STEPS]
    assert document["run"]["chosen_step"] == card["chosen"]["step"]
    assert document["log"]["step"][-1] == STEPS


def stopped(number: signal.Signals, run: Path, *arguments: str | Path) -> None:
    """Runs a training that gets a signal after its first step, and prints how to continue it."""
    command = ("train", "--run", run, *arguments)
    done = stopped_after("training.run.samples.write_grid", number, *command)
    assert done.returncode == 128 + number, done.stderr
    assert f"  digitgan {shlex.join(map(str, command))} --resume\n" in done.stdout
    assert not (run / "models").exists()


def test_control_c_saves_a_run_and_stops(data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    few = ("--set", "batch_size=8", "--set", "evaluate_every=0", "--classifier", str(MODELS_DIR))
    publishing = ("--index-seeds", "20", "--no-export")
    stopped(signal.SIGINT, run, "--data", data, "--steps", "500", "--preset", "deck", *few, *publishing)
    assert state(run)["trainer/generator_optimizer/_iterations/.ATTRIBUTES/VARIABLE_VALUE"] == 1


def test_export_publishes_the_evaluated_generator_again_with_the_same_detector(evaluated: Path, tmp_path: Path) -> None:
    shutil.copytree(evaluated / "models" / GENERATOR, tmp_path / GENERATOR)
    done = digitgan_here(
        "export", evaluated, "--models", tmp_path, "--mount-point", "/srv/models", "--index-seeds", "20"
    )
    assert "Published version 2" in done.stdout
    assert_float32()
    detectors = [
        read_card(path)["detector"] for path in (evaluated / "models/discriminator/1", tmp_path / "discriminator/2")
    ]
    assert detectors[0] == detectors[1]
    first, second = (read_card(tmp_path / GENERATOR / version) for version in ("1", "2"))
    assert second["evaluation"] == first["evaluation"], "the quality gate needs it"
    assert sum(second["seed_index"]["digits"]) == 20
    noise = noise_from_seeds(range(20))
    pixels = [outputs_of(tmp_path / GENERATOR / version, noise=noise)[IMAGES] for version in ("1", "2")]
    np.testing.assert_array_equal(*pixels)
    assert "/srv/models/generator" in (tmp_path / "models.config").read_text()


def test_a_dry_run_prints_the_configuration_and_writes_nothing(digits_npz: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    given = {"batch-size": "50", "dropout": "0.1", "loss": "non-saturating", "xla": "True", "evaluate_every": "0"}
    settings = [word for name, value in given.items() for word in ("--set", f"{name}={value}")]
    done = digitgan_here("train", "--data", digits_npz, "--epochs", "2", "--run", run, "--dry-run", *settings)
    config = json.loads(done.stdout)
    assert (config["steps"], config["images"], config["evaluate_every"], config["xla"]) == (55, 1375, 0, True)
    recipe = {"batch_size": 50, "dropout": 0.1, "loss": "non-saturating"}
    assert config["recipe"].items() >= recipe.items()
    assert not run.exists()


def test_a_damaged_checkpoint_is_named(run: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(run, tmp_path / "run")
    (copy / f"checkpoints/ckpt-{STEPS}.index").write_bytes(b"")
    with pytest.raises(ConfigError, match=f"ckpt-{STEPS} is damaged"):
        digitgan_here("export", copy)


def test_a_worker_names_missing_ones(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = shutil.copytree(run, tmp_path / "run")
    with socket.socket() as reserved:  # No other process can take the address.
        reserved.bind(("127.0.0.1", 0))
        absent = f"127.0.0.1:{reserved.getsockname()[1]}"
        cluster = {"worker": [absent, f"127.0.0.1:{free_port()}"]}
        monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": cluster, "task": {"type": "worker", "index": 1}}))
        done = digitgan_here("train", "--run", copy, "--resume", "--steps", STEPS + 1, "--workers-timeout", 1)
    assert (done.exit_code, f"no answer from {absent} in 1 s" in done.output) == (1, True)
    assert f"Waiting for {absent}" in done.stderr
