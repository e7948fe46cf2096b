"""The exported graphs: what they compute, for which shapes, and in which converters."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import openvino
import pytest
import tensorflow as tf
from openvino.tools.ovc import convert_model

from serving.contract import CLASSIFIER, DISCRIMINATOR, GENERATOR, IMAGES, MODELS, NOISE, SIGNATURE
from training.classifier import build_classifier
from training.gan.generator_graph import sub_pixel
from training.gan.networks import build_discriminator, build_generator
from training.publish.inference import inference_module

BUILDERS: dict[str, Callable[[], Any]] = {
    GENERATOR: build_generator,
    DISCRIMINATOR: lambda: build_discriminator(0.0),
    CLASSIFIER: build_classifier,
}


def example_network(name: str) -> Any:
    """A network with weights and statistics that are nowhere near their initial values."""
    keras.utils.set_random_seed(0)
    network = BUILDERS[name]()
    rng = np.random.default_rng(0)
    network.set_weights(
        [np.abs(rng.normal(1, 0.3, weight.shape)) if weight.ndim == 1 else weight for weight in network.get_weights()]
    )
    return network


@pytest.fixture(scope="module")
def networks() -> dict[str, Any]:
    return {name: example_network(name) for name in BUILDERS}


@pytest.fixture(scope="module")
def saved(networks: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The directories of the saved graphs."""
    directories = {}
    for name, network in networks.items():
        directories[name] = tmp_path_factory.mktemp(name)
        module = inference_module(name, network)
        tf.saved_model.save(module, str(directories[name]), signatures=dict(module.graphs))
    return directories


def noise(rows: int) -> Any:
    return np.random.default_rng(rows).normal(size=(rows, 100)).astype(np.float32)


def expected(network: Any, rows: int) -> Any:
    return np.asarray(network(noise(rows), training=False), np.float64) * 127.5 + 127.5


def test_no_operation_rounds_otherwise_in_another_release(saved: dict[str, Path]) -> None:
    """TensorFlow 2.19's tanh isn't 2.20's: some pixels differ."""
    graph = tf.saved_model.load(str(saved[GENERATOR])).signatures[SIGNATURE].graph.as_graph_def()
    operations = {node.op for function in graph.library.function for node in function.node_def}
    assert "Sigmoid" in operations
    assert "Tanh" not in operations


def test_a_sub_pixel_convolution_is_the_transposed_one() -> None:
    rng = np.random.default_rng(0)
    kernel, maps = rng.normal(size=(5, 5, 3, 8)), np.float32(rng.normal(size=(2, 7, 7, 8)))
    plain = tf.nn.conv2d_transpose(maps, np.float32(kernel), [2, 14, 14, 3], 2)
    phases = tf.nn.conv2d(maps, sub_pixel(kernel), strides=1, padding="SAME")
    np.testing.assert_allclose(tf.nn.depth_to_space(phases, 2), plain, atol=1e-5)


def test_a_session_computes_it_too_and_fuses_a_convolution_with_what_follows(
    saved: dict[str, Path], networks: dict[str, Any]
) -> None:
    """TensorFlow Serving runs SavedModels in sessions."""
    v1 = tf.compat.v1
    with v1.Graph().as_default(), v1.Session() as session:
        signature = v1.saved_model.load(session, ["serve"], str(saved[GENERATOR])).signature_def[SIGNATURE]
        ran = v1.RunMetadata()
        pixels = session.run(
            signature.outputs[IMAGES].name,
            {signature.inputs[NOISE].name: noise(8)},
            options=v1.RunOptions(output_partition_graphs=True),
            run_metadata=ran,
        )
    np.testing.assert_allclose(pixels, expected(networks[GENERATOR], 8), atol=0.51)
    fused = [list(node.attr["fused_ops"].list.s) for graph in ran.partition_graphs for node in graph.node]
    assert [b"BiasAdd", b"LeakyRelu"] in fused


INPUTS = {
    GENERATOR: {NOISE: noise(6)},
    DISCRIMINATOR: {IMAGES: np.random.default_rng(0).integers(0, 256, (6, 28, 28, 1), np.uint8)},
    CLASSIFIER: {IMAGES: np.random.default_rng(0).integers(0, 256, (6, 28, 28, 1), np.uint8)},
}


def outputs_of(directory: Path, inputs: dict[str, Any]) -> dict[str, Any]:
    served = tf.saved_model.load(str(directory)).signatures[SIGNATURE]
    return {name: value.numpy() for name, value in served(**{k: tf.constant(v) for k, v in inputs.items()}).items()}


@pytest.mark.parametrize("name", BUILDERS)
def test_the_graph_checks_the_shape_of_its_input(saved: dict[str, Path], name: str) -> None:
    """TensorFlow Serving compares no shape with the signature, and some operations crash on a wrong rank."""
    graph = tf.saved_model.load(str(saved[name])).signatures[SIGNATURE].graph.as_graph_def()
    checks = [node for function in graph.library.function for node in function.node_def if node.op == "EnsureShape"]
    spec = MODELS[name].input
    assert [[dim.size for dim in node.attr["shape"].shape.dim] for node in checks] == [[-1, *spec.shape]]
    takers = [node.op for function in graph.library.function for node in function.node_def if spec.name in node.input]
    assert takers == ["EnsureShape"]


def assert_same(name: str, converted: dict[str, Any], expected: dict[str, Any]) -> None:
    """Passes when pixels differ by one level at most, and everything else by rounding."""
    assert converted.keys() == expected.keys()
    for key, value in expected.items():
        tolerance = 1 if name == GENERATOR else 1e-3 * np.abs(value).max()
        np.testing.assert_allclose(np.float64(converted[key]), np.float64(value), rtol=0, atol=tolerance)


def assert_openvino_converts(name: str, directory: Path) -> None:
    """Passes when the model that OpenVINO's converter makes computes the same."""
    model = openvino.compile_model(convert_model(str(directory)), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    expected = outputs_of(directory, INPUTS[name])
    found = model(INPUTS[name])
    assert_same(name, {key: found[key] for key in expected}, expected)


def test_openvino_converts_the_generator(saved: dict[str, Path]) -> None:
    """tests/slow/test_converters.py has the other models, and TFLite."""
    assert_openvino_converts(GENERATOR, saved[GENERATOR])
