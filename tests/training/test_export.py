"""What is published computes what was trained, is whole, and says where it came from; or nothing is published."""

import shutil
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from numpy.typing import NDArray
from tensorflow_serving.apis import prediction_log_pb2

from serving import contract
from serving.contract import CLASSIFIER, DISCRIMINATOR, GENERATOR, IMAGES, MODELS, NOISE, SIGNATURE
from serving.errors import UserError
from serving.noise import noise_from_seeds
from serving.versions.model_card import read_card, verify
from tests.support.pretrained import pretrained
from training.evaluation.calibration import Calibration
from training.gan.networks import build_discriminator, build_generator
from training.publish import seed_index
from training.publish.export import export

LABELLED: dict[str, Any] = {"classifier": pretrained(CLASSIFIER), "index_seeds": 300}


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
    details = {DISCRIMINATOR: {"detector": {"auc": 0.9}}}
    calibration = Calibration(slope=0.5, offset=-0.25)
    tf.config.experimental.enable_tensor_float_32_execution(True)
    facts = {"training": {"preset": "deck"}}
    checked = {name: Drifting(network, 0.0) for name, network in networks.items()}
    assert export(checked, base, facts, details=details, calibration=calibration, story=b"{}", **LABELLED) == 1
    return base


def outputs_of(version: Path, signature: str = SIGNATURE, **inputs: NDArray[Any]) -> dict[str, Any]:
    served = tf.saved_model.load(str(version)).signatures[signature]
    return {name: value.numpy() for name, value in served(**{k: tf.constant(v) for k, v in inputs.items()}).items()}


def versions(model_base: Path) -> set[str]:
    return {path.name for path in model_base.iterdir()}


def test_the_pixels_and_scores_are_the_networks(base: Path, networks: dict[str, Any]) -> None:
    noise = np.random.default_rng(1).normal(size=(50, 100)).astype(np.float32)
    pixels = outputs_of(base / GENERATOR / "1", noise=noise)[IMAGES]
    assert pixels.std() > 10
    drawn = np.asarray(networks[GENERATOR](noise, training=False)) * 127.5 + 127.5
    np.testing.assert_allclose(pixels, drawn, atol=0.51)
    images = np.random.default_rng(1).integers(0, 256, (50, 28, 28, 1), np.uint8)
    outputs = outputs_of(base / DISCRIMINATOR / "1", images=images)
    logits = np.asarray(networks[DISCRIMINATOR](images / np.float32(127.5) - 1, training=False))[:, 0]
    np.testing.assert_allclose(outputs["logits"], logits, atol=1e-4)
    np.testing.assert_allclose(outputs["probabilities"], 1 / (1 + np.exp(-(0.5 * logits - 0.25))), atol=1e-5)


def test_the_seed_index_says_what_the_served_models_say(base: Path) -> None:
    """A page that is not there is the nearest one that is."""
    index = outputs_of(base / GENERATOR / "1", contract.SEED_INDEX, pages=np.array([0, 7, -3]))
    for table in index.values():
        assert (table == table[0]).all()
    assert index["indexed_seeds"][0] == 300
    digits, confidences, logits, curated = (index[name][0] for name in ("digits", "confidences", "logits", "curated"))
    assert len(digits) == contract.INDEX_PAGE
    assert (digits[300:] == contract.NOT_INDEXED).all()
    assert not confidences[300:].any()
    assert not curated[300:].any()

    images = outputs_of(base / GENERATOR / "1", noise=noise_from_seeds(range(256)))[IMAGES]
    probabilities = outputs_of(base / CLASSIFIER / "1", images=images)["probabilities"]
    np.testing.assert_array_equal(digits[:256], probabilities.argmax(1))
    np.testing.assert_allclose(confidences[:256], probabilities.max(1), atol=1e-6)
    scores = outputs_of(base / DISCRIMINATOR / "1", images=images)
    np.testing.assert_allclose(logits[:256], scores["logits"], atol=1e-3)

    card = read_card(base / GENERATOR / "1")["seed_index"]
    assert (card["seeds"], card["classifier"]) == (300, 1)
    assert card["digits"] == np.bincount(digits[:300], minlength=10).tolist()
    assert card["curated"] == np.bincount(digits[curated == 1], minlength=10).tolist()


def seen(noise: NDArray[Any]) -> NDArray[np.uint8]:
    """An image that shows its noise's first three numbers: digit, how clear it is, how real it looks."""
    images = np.zeros((len(noise), 28, 28, 1), np.uint8)
    images[:, 0, :3, 0] = np.clip(np.abs(noise[:, :3]) * 100, 0, 255)
    return images


def classify(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    confidence = np.where(images[:, 0, 1, 0] > 50, 0.995, 0.91).astype(np.float32)
    probabilities = np.repeat((1 - confidence)[:, None] / 9, 10, axis=1)
    probabilities[np.arange(len(images)), images[:, 0, 0, 0] % 9] = confidence  # Never a 9.
    return np.asarray(probabilities)


def score(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    return images[:, 0, 2, 0].astype(np.float32)


def test_every_seed_is_labelled_and_the_curated_are_sure_and_the_more_real_of_their_digit() -> None:
    index, facts = seed_index.build(seen, classify, score, 5000)
    images = seen(noise_from_seeds(range(5000)))
    digits, confidences, logits, curated = (index[name] for name in ("digits", "confidences", "logits", "curated"))
    np.testing.assert_array_equal(digits, classify(images).argmax(1))
    np.testing.assert_array_equal(confidences, classify(images).max(1))
    np.testing.assert_array_equal(logits, score(images))
    assert not curated[confidences < 0.99].any()
    for digit in range(9):
        shown = (confidences >= 0.99) & (digits == digit)
        np.testing.assert_array_equal(curated[shown] == 1, logits[shown] >= facts["logit_floors"][digit])
        assert curated[shown].mean() == pytest.approx(0.75, abs=0.05)
    assert facts["logit_floors"][9] is None
    assert facts["digits"][9] == facts["curated"][9] == 0
    assert sum(facts["digits"]) == facts["seeds"] == 5000
    assert sum(facts["curated"]) == curated.sum()


def test_the_classifier_is_published_once(base: Path, networks: dict[str, Any], tmp_path: Path) -> None:
    card = read_card(base / CLASSIFIER / "1")
    assert card["test"] == read_card(LABELLED["classifier"])["test"]
    verify(base / CLASSIFIER / "1")
    shutil.copytree(base / CLASSIFIER / "1", tmp_path / CLASSIFIER / "3")
    few = LABELLED | {"index_seeds": 2}
    export(networks, tmp_path, {}, **few)
    assert versions(tmp_path / CLASSIFIER) == {"3"}
    assert read_card(tmp_path / GENERATOR / "1")["seed_index"]["classifier"] == 3

    (tmp_path / CLASSIFIER / "3" / "model.json").unlink()
    export(networks, tmp_path, {}, **few)
    assert versions(tmp_path / CLASSIFIER) == {"3", "4"}
    assert read_card(tmp_path / CLASSIFIER / "4")["version"] == 4
    assert read_card(tmp_path / GENERATOR / "2")["seed_index"]["classifier"] == 4


def assert_follows_contract(name: str, version: Path) -> None:
    """Passes when each signature has the contract's tensors, and a graph of images or noise checks its input's shape.

    TensorFlow Serving does not compare shapes, and some operations crash on a wrong rank.
    """
    saved = tf.saved_model.load(str(version))
    for spec in (spec for spec in contract.SIGNATURES.values() if spec.name == name):
        signature = saved.signatures[spec.signature]
        _, inputs = signature.structured_input_signature
        for tensors, specs in ((inputs, [spec.input]), (signature.structured_outputs, spec.outputs)):
            assert {key: (tensor.dtype.name, tuple(tensor.shape)) for key, tensor in tensors.items()} == {
                each.name: (each.dtype, (None, *each.shape)) for each in specs
            }
        if spec.input.shape:
            functions = signature.graph.as_graph_def().library.function
            takers = [node for function in functions for node in function.node_def if spec.input.name in node.input]
            shapes = [[dim.size for dim in node.attr["shape"].shape.dim] for node in takers if node.op == "EnsureShape"]
            assert shapes == [[-1, *spec.input.shape]] * len(takers)
            assert takers


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
    assert tuple(sizes) == contract.BATCH_SIZES


@pytest.mark.parametrize("name", MODELS)
def test_a_version_follows_the_contract_and_its_card_names_every_file(base: Path, name: str) -> None:
    if name != CLASSIFIER:  # tests/training/test_classifier.py has it
        assert_follows_contract(name, base / name / "1")
    card = read_card(base / name / "1")
    assert (card["model"], card["version"]) == (name, 1)
    assert name == CLASSIFIER or card["training"] == {"preset": "deck"}
    assert ("detector" in card) == (name == DISCRIMINATOR)
    assert {"saved_model.pb", "assets.extra/tf_serving_warmup_requests"} <= set(card["files"])
    verify(base / name / "1")


def test_both_models_get_the_next_number_and_nothing_else_is_left(networks: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / GENERATOR / "4").mkdir(parents=True)
    assert export(networks, tmp_path, {}) == 5
    assert versions(tmp_path / GENERATOR) == {"4", "5"}
    assert versions(tmp_path / DISCRIMINATOR) == {"5"}
    outputs = outputs_of(tmp_path / DISCRIMINATOR / "5", images=np.zeros((6, 28, 28, 1), np.uint8))
    np.testing.assert_allclose(outputs["probabilities"], 1 / (1 + np.exp(-outputs["logits"])), atol=1e-5)


class Drifting:
    """A network that adds ``drift`` to its outputs outside of a graph. It refuses to compute in TF32."""

    def __init__(self, network: Any, drift: float) -> None:
        self._network, self._drift = network, np.float32(drift)
        self.layers, self.weights = network.layers, network.weights

    def __call__(self, inputs: Any, training: bool) -> Any:
        assert not tf.config.experimental.tensor_float_32_execution_enabled(), "a GPU would compute other pixels"
        outputs = self._network(inputs, training=training)
        return outputs + self._drift if tf.executing_eagerly() else outputs


@pytest.mark.parametrize(("name", "drift"), [(GENERATOR, 0.02), (DISCRIMINATOR, 0.02), (DISCRIMINATOR, np.nan)])
def test_a_graph_that_differs_from_the_network_is_not_published(
    networks: dict[str, Any], tmp_path: Path, name: str, drift: float
) -> None:
    with pytest.raises(UserError, match=f"{name}: at batch size 1, .* nothing was published"):
        export({**networks, name: Drifting(networks[name], drift)}, tmp_path, {})
    assert not list(tmp_path.rglob("*.pb"))


def test_nothing_is_published_without_the_classifier(networks: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the classifier can't be published"):
        export(networks, tmp_path / "models", {}, classifier=tmp_path, index_seeds=2)
    assert not list(tmp_path.rglob("*.pb"))


def test_a_session_computes_the_same_and_fuses_a_convolution_with_what_follows(base: Path) -> None:
    """TensorFlow Serving runs SavedModels in sessions. TensorFlow 2.19's tanh isn't 2.20's: some pixels differ."""
    v1, noise = tf.compat.v1, noise_from_seeds(range(6))
    with v1.Graph().as_default(), v1.Session() as session:
        signature = v1.saved_model.load(session, ["serve"], str(base / GENERATOR / "1")).signature_def[SIGNATURE]
        ran = v1.RunMetadata()
        pixels = session.run(
            signature.outputs[IMAGES].name,
            {signature.inputs[NOISE].name: noise},
            options=v1.RunOptions(output_partition_graphs=True),
            run_metadata=ran,
        )
    expected = outputs_of(base / GENERATOR / "1", noise=noise)[IMAGES]
    assert np.abs(pixels.astype(int) - expected).max() <= 1
    nodes = [node for graph in ran.partition_graphs for node in graph.node]
    assert [b"BiasAdd", b"LeakyRelu"] in [list(node.attr["fused_ops"].list.s) for node in nodes]
    assert "Tanh" not in {node.op for node in nodes}
