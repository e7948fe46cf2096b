"""What is published computes what was trained, is whole, and says where it came from; or nothing is published."""

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format
from numpy.typing import NDArray
from tensorflow_serving.apis import prediction_log_pb2
from tensorflow_serving.config import model_server_config_pb2

from serving import model_card
from serving.contract import BATCH_SIZES, DISCRIMINATOR, GENERATOR, MODELS
from training.export import ExportError, export, versions
from training.networks import build_discriminator, build_generator


def trained(network: Any) -> Any:
    """The network with weights and statistics that are nowhere near their initial values."""
    rng = np.random.default_rng(0)
    network.set_weights(
        [np.abs(rng.normal(1, 0.3, weight.shape)) if weight.ndim == 1 else weight for weight in network.get_weights()]
    )
    return network


@pytest.fixture(scope="module")
def networks() -> dict[str, Any]:
    keras.utils.set_random_seed(0)
    return {GENERATOR: trained(build_generator()), DISCRIMINATOR: trained(build_discriminator(0.2))}


@pytest.fixture(scope="module")
def base(networks: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("models")
    assert export(networks, base, {"training": {"preset": "deck"}}) == 1
    return base


def run(base: Path, name: str, inputs: NDArray[Any], version: int = 1) -> dict[str, NDArray[Any]]:
    served = tf.saved_model.load(str(base / name / str(version))).signatures["serving_default"]
    return {key: value.numpy() for key, value in served(tf.constant(inputs)).items()}


def test_the_generators_pixels_are_the_networks(base: Path, networks: dict[str, Any]) -> None:
    noise = np.random.default_rng(1).normal(size=(50, 100)).astype(np.float32)
    pixels = run(base, GENERATOR, noise)["images"]
    images = np.asarray(networks[GENERATOR](noise, training=False))
    assert pixels.dtype == np.dtype(np.uint8)
    assert pixels.shape == (50, 28, 28, 1)
    assert pixels.std() > 10
    np.testing.assert_allclose(pixels, images * 127.5 + 127.5, atol=0.51)


def test_the_discriminators_logits_are_the_networks(base: Path, networks: dict[str, Any]) -> None:
    images = np.random.default_rng(1).integers(0, 256, (50, 28, 28, 1), np.uint8)
    outputs = run(base, DISCRIMINATOR, images)
    logits = np.asarray(networks[DISCRIMINATOR](images / np.float32(127.5) - 1, training=False))[:, 0]
    assert outputs["logits"].shape == outputs["probabilities"].shape == (50,)
    np.testing.assert_allclose(outputs["logits"], logits, atol=1e-4)
    np.testing.assert_allclose(outputs["probabilities"], 1 / (1 + np.exp(-logits)), atol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_the_signature_is_the_contracts(base: Path, name: str) -> None:
    signature = tf.saved_model.load(str(base / name / "1")).signatures["serving_default"]
    spec = MODELS[name]
    _, inputs = signature.structured_input_signature
    assert {key: (t.dtype.name, tuple(t.shape)) for key, t in inputs.items()} == {
        spec.input.name: (spec.input.dtype, (None, *spec.input.shape))
    }
    assert {key: (t.dtype.name, tuple(t.shape)) for key, t in signature.structured_outputs.items()} == {
        output.name: (output.dtype, (None, *output.shape)) for output in spec.outputs
    }


@pytest.mark.parametrize("name", MODELS)
def test_warm_up_requests_cover_every_batch_size(base: Path, name: str) -> None:
    """Read with TensorFlow Serving's own message classes."""
    records = tf.data.TFRecordDataset(str(base / name / "1" / "assets.extra" / "tf_serving_warmup_requests"))
    sizes = []
    for record in records:
        request = prediction_log_pb2.PredictionLog.FromString(record.numpy()).predict_log.request
        assert (request.model_spec.name, request.model_spec.signature_name) == (name, "serving_default")
        inputs = tf.make_ndarray(request.inputs[MODELS[name].input.name])
        assert inputs.dtype == MODELS[name].input.dtype
        sizes.append(len(inputs))
    assert tuple(sizes) == BATCH_SIZES


@pytest.mark.parametrize("name", MODELS)
def test_the_card_names_every_file_and_a_changed_byte_belies_it(base: Path, name: str, tmp_path: Path) -> None:
    version = tmp_path / "1"
    for path in (base / name / "1").rglob("*"):
        if path.is_file():
            copy = version / path.relative_to(base / name / "1")
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
    card = model_card.read_card(version)
    assert (card["model"], card["version"], card["training"]) == (name, 1, {"preset": "deck"})
    assert {"saved_model.pb", "assets.extra/tf_serving_warmup_requests"} <= set(card["files"])
    model_card.verify(version)
    content = bytearray((version / "saved_model.pb").read_bytes())
    content[len(content) // 2] ^= 1
    (version / "saved_model.pb").write_bytes(content)
    with pytest.raises(model_card.CardError, match=r"saved_model\.pb has SHA-256"):
        model_card.verify(version)
    (version / "saved_model.pb").unlink()
    with pytest.raises(model_card.CardError, match="is missing"):
        model_card.verify(version)


def test_both_models_get_the_next_number_and_nothing_else_is_left(networks: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / GENERATOR / "4").mkdir(parents=True)
    assert export(networks, tmp_path, {}) == 5
    assert versions(tmp_path / GENERATOR) == [4, 5]
    assert versions(tmp_path / DISCRIMINATOR) == [5]
    assert {path.name for path in (tmp_path / GENERATOR).iterdir()} == {"4", "5"}
    assert {path.name for path in (tmp_path / DISCRIMINATOR).iterdir()} == {"5"}


def test_tensorflow_serving_reads_the_models_config(base: Path) -> None:
    text = (base / "models.config").read_text()
    config = text_format.Parse(text, model_server_config_pb2.ModelServerConfig())
    entries = [(entry.name, entry.base_path, entry.model_platform) for entry in config.model_config_list.config]
    assert entries == [(name, f"/models/{name}", "tensorflow") for name in (GENERATOR, DISCRIMINATOR)]
    assert "allowed_batch_sizes: 256" in (base / "batching.config").read_text()
    assert "/monitoring/prometheus/metrics" in (base / "monitoring.config").read_text()


class Drifting:
    """A network whose answers change from call to call, as no exported graph can follow."""

    def __init__(self, network: Any) -> None:
        self._network = network
        self.layers = network.layers

    def __call__(self, inputs: Any, training: bool) -> Any:
        return np.asarray(self._network(inputs, training=training)) + np.float32(0.02)


@pytest.mark.parametrize("name", MODELS)
def test_a_graph_that_differs_from_the_network_is_not_published(
    networks: dict[str, Any], tmp_path: Path, name: str
) -> None:
    with pytest.raises(ExportError, match=f"{name}: at batch size 1 .* nothing was published"):
        export({**networks, name: Drifting(networks[name])}, tmp_path, {})
    assert versions(tmp_path / GENERATOR) == versions(tmp_path / DISCRIMINATOR) == []
    assert not list(tmp_path.rglob("*.pb"))


def test_a_network_that_gives_nan_is_not_published(tmp_path: Path) -> None:
    broken = build_discriminator(0.2)
    broken.set_weights([np.full_like(weight, np.nan) for weight in broken.get_weights()])
    with pytest.raises(ExportError, match="differs"):
        export({DISCRIMINATOR: broken}, tmp_path, {})


def test_the_card_is_json_for_people_too(base: Path) -> None:
    text = (base / GENERATOR / "1" / "model.json").read_text()
    assert json.loads(text)["export"]["tensorflow"] == tf.__version__
    assert text.count("\n") > 10
