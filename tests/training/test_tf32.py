"""TF32 is off wherever pixels are computed, so that a saved graph equals its network on a GPU too."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from numpy.typing import NDArray
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from digitgan.cli import app
from serving.contract import GENERATOR, IMAGES, SIGNATURE
from serving.errors import UserError
from serving.noise import noise_from_seeds
from serving.pretrained import MODELS_DIR
from serving.versions.model_card import read_card
from tests.training.tf32 import emulated_tf32
from training import job
from training.gan.convolution import four_product_transforms
from training.gan.generator_graph import generator_graph
from training.gan.networks import build_generator
from training.publish.export import export
from training.publish.signatures import PIXEL_TOLERANCE

SHIPPED = MODELS_DIR / GENERATOR / "1"
DENSE_UNITS = 7 * 7 * 256


@pytest.fixture(scope="module")
def shipped() -> Any:
    """The generator in the package as a network of Keras's own layers, which compute on a GPU.

    The exported weights include the batch normalisation, so the network's own only adds the biases.
    """
    saved = SavedModel()
    saved.ParseFromString((SHIPPED / "saved_model.pb").read_bytes())
    constants = {
        node.name: tf.make_ndarray(tensor)
        for function in saved.meta_graphs[0].graph_def.library.function
        if "seed_index" not in function.signature.name
        for node in function.node_def
        if (tensor := node.attr["value"].tensor).dtype == tf.float32.as_datatype_enum
    }
    _, of_kernel, _ = four_product_transforms(7, 5, True)
    spectra = next(value for value in constants.values() if value.ndim == 4 and value.shape[:2] == (41, 2))
    first_kernel = np.linalg.lstsq(of_kernel, spectra.reshape(len(of_kernel), -1).astype(np.float64))[0]
    kernels = [
        constants["MatMul/b"].reshape(49, 100, 256).transpose(1, 0, 2).reshape(100, DENSE_UNITS),
        np.float32(first_kernel.reshape(5, 5, 256, 128).swapaxes(2, 3)),
        of_transposed_convolution(constants["Conv2D/filter"]),
        of_transposed_convolution(constants["Conv2D_1/filter"]),
    ]
    biases = [constants[name].ravel() for name in ("add/y", "BiasAdd/bias", "BiasAdd_1/bias")]
    weights = []
    for kernel, bias, units in zip(kernels, biases, (DENSE_UNITS, 128, 64), strict=False):
        one = np.ones(units, np.float32)
        weights += [kernel, one, bias[:units], 0 * one, one - np.float32(1e-3)]  # Keras adds 1e-3 to the variance.
    network = build_generator()
    network.set_weights([*weights, kernels[-1]])
    return network


def of_transposed_convolution(kernel: NDArray[np.float32]) -> NDArray[np.float32]:
    """The inverse of training.gan.generator_graph.sub_pixel."""
    phases = kernel.swapaxes(2, 3)[::-1, ::-1]
    taps, _, _, channels = phases.shape
    split = phases.reshape(taps, taps, 2, 2, -1, channels).transpose(0, 2, 1, 3, 4, 5)
    return split.reshape(2 * taps, 2 * taps, -1, channels)[1:, 1:]


def draw(network: Any, seeds: int) -> NDArray[np.float64]:
    graph = generator_graph(network)
    return np.asarray(graph(tf.constant(noise_from_seeds(range(seeds))))[IMAGES], np.float64)


def test_the_emulation_rounds_what_a_gpu_rounds() -> None:
    """The operands of each operation to a 10-bit mantissa, but only where TensorFlow's flag allows it."""
    fine = np.full((1, 1, 1, 1), 1 + 2**-11 + 2**-20, np.float32)

    def results() -> list[float]:
        same = {"strides": 1, "padding": "SAME"}
        outputs = [
            tf.matmul(fine[0, 0], np.ones((1, 1), np.float32)),
            tf.matmul(fine, np.ones((1, 1, 1, 1), np.float32)),
            tf.nn.conv2d(fine, np.ones((1, 1, 1, 1), np.float32), **same),
            tf.nn.conv2d_transpose(fine, np.ones((1, 1, 1, 1), np.float32), [1, 1, 1, 1], **same),
        ]
        return [float(tf.squeeze(output)) for output in outputs]

    with emulated_tf32():
        assert results() == [1 + 2**-10] * 4
        tf.config.experimental.enable_tensor_float_32_execution(False)
        assert results() == [fine.item()] * 4


def test_tf32_moves_more_pixels_than_rounding_does(shipped: Any) -> None:
    """What a model server without NVIDIA_TF32_OVERRIDE=0 would send (k8s/base/README.md)."""
    exact = draw(shipped, 500)
    with emulated_tf32():
        difference = np.abs(draw(shipped, 500) - exact)
    assert 0.01 < (difference > 0).mean() < 0.03
    assert 1 < difference.max() < 10


def test_a_generator_is_published_on_a_gpu_with_tf32(shipped: Any, tmp_path: Path) -> None:
    """The export compares a saved graph with its network in float32. Under TF32 they differ by a level and more."""
    with emulated_tf32():
        noise = noise_from_seeds(range(64))
        images = np.asarray(shipped(noise, training=False), np.float64) * 127.5 + 127.5
        assert np.abs(draw(shipped, 64) - images).max() > 2 * PIXEL_TOLERANCE
        assert export({GENERATOR: shipped}, tmp_path, {}) == 1
    card = read_card(tmp_path / GENERATOR / "1")
    assert card["export"]["greatest_difference_from_network"] <= PIXEL_TOLERANCE
    published = tf.saved_model.load(str(tmp_path / GENERATOR / "1")).signatures[SIGNATURE]
    pixels = published(tf.constant(noise_from_seeds(range(500))))[IMAGES].numpy()
    assert (pixels != draw(shipped, 500)).mean() < 1 / 20_000


@pytest.fixture
def run(digits_npz: Path, tmp_path: Path) -> Path:
    """A run directory that holds nothing but its configuration."""
    settings = {"batch_size": 8, "classifier": str(MODELS_DIR), "evaluate_every": 0}
    config, _ = job.resolve(tmp_path, digits_npz, preset="deck", steps=1, overrides=settings)
    config.write(tmp_path)
    return tmp_path


@pytest.mark.parametrize("command", ["train", "export", "evaluate", "report", "train-classifier"])
def test_every_command_that_computes_prepares_tensorflow(command: str, run: Path, digits_npz: Path) -> None:
    arguments = {
        "train": ["--run", str(run), "--resume", "--no-export"],
        "export": [str(run)],
        "evaluate": [str(MODELS_DIR), "--data", str(digits_npz), "--classifier", "NOWHERE"],
        "report": [str(run)],
        "train-classifier": ["--data", str(digits_npz), "--models", "/proc/nowhere"],
    }
    tf.config.experimental.enable_tensor_float_32_execution(True)
    with suppress(UserError, OSError):
        app([command, *arguments[command]], standalone_mode=False)
    assert not tf.config.experimental.tensor_float_32_execution_enabled()
