"""The generator's graph: small on disk, and its spectra come with the loading."""

import gc
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from serving.contract import GENERATOR, IMAGES, NOISE, SIGNATURE
from training.inference import inference_module
from training.inference.generator import sub_pixel
from training.networks import build_generator


def example_network(seed: int) -> Any:
    keras.utils.set_random_seed(seed)
    network = build_generator()
    rng = np.random.default_rng(seed)
    network.set_weights(
        [np.abs(rng.normal(1, 0.3, weight.shape)) if weight.ndim == 1 else weight for weight in network.get_weights()]
    )
    return network


@pytest.fixture(scope="module")
def networks() -> list[Any]:
    return [example_network(seed) for seed in (0, 1)]


@pytest.fixture(scope="module")
def saved(networks: list[Any], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The graphs of two networks."""
    directories = []
    for network in networks:
        directories.append(tmp_path_factory.mktemp("saved"))
        module = inference_module(GENERATOR, network)
        tf.saved_model.save(module, str(directories[-1]), signatures=dict(module.graphs))
    return directories


def noise(rows: int) -> Any:
    return np.random.default_rng(rows).normal(size=(rows, 100)).astype(np.float32)


def expected(network: Any, rows: int) -> Any:
    return np.asarray(network(noise(rows), training=False), np.float64) * 127.5 + 127.5


def test_versions_in_one_process_keep_their_own_kernels(saved: list[Path], networks: list[Any]) -> None:
    loaded = [tf.saved_model.load(str(directory)) for directory in saved]
    for each, network in zip(loaded, networks, strict=True):
        pixels = each.signatures[SIGNATURE](tf.constant(noise(3)))[IMAGES].numpy()
        np.testing.assert_allclose(pixels, expected(network, 3), atol=0.51)

    again = tf.saved_model.load(str(saved[0]))
    del loaded
    gc.collect()
    pixels = again.signatures[SIGNATURE](tf.constant(noise(3)))[IMAGES].numpy()
    np.testing.assert_allclose(pixels, expected(networks[0], 3), atol=0.51)


def test_the_file_holds_kernels_and_no_spectra(saved: list[Path]) -> None:
    assert sum(path.stat().st_size for path in saved[0].rglob("*") if path.is_file()) < 10_000_000


def test_no_operation_rounds_otherwise_in_another_release(saved: list[Path]) -> None:
    """TensorFlow 2.19's tanh isn't 2.20's: python -m benchmarks.tensorflow_versions shows it."""
    graph = tf.saved_model.load(str(saved[0])).signatures[SIGNATURE].graph.as_graph_def()
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
    saved: list[Path], networks: list[Any]
) -> None:
    """TensorFlow Serving runs SavedModels in sessions, whose loading makes the spectra."""
    v1 = tf.compat.v1
    with v1.Graph().as_default(), v1.Session() as session:
        signature = v1.saved_model.load(session, ["serve"], str(saved[0])).signature_def[SIGNATURE]
        ran = v1.RunMetadata()
        pixels = session.run(
            signature.outputs[IMAGES].name,
            {signature.inputs[NOISE].name: noise(8)},
            options=v1.RunOptions(output_partition_graphs=True),
            run_metadata=ran,
        )
    np.testing.assert_allclose(pixels, expected(networks[0], 8), atol=0.51)
    fused = [list(node.attr["fused_ops"].list.s) for graph in ran.partition_graphs for node in graph.node]
    assert [b"BiasAdd", b"LeakyRelu"] in fused
