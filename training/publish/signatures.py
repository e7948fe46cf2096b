"""The signatures that are published: the trained networks with uint8 pixels outside, and tables page by page."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from scipy.special import softmax

from serving import contract
from serving.contract import FEATURES, IMAGES, LOGITS, PROBABILITIES, SIGNATURE
from serving.noise import noise_from_seeds
from training.evaluation.calibration import Calibration
from training.gan.generator_graph import generator_graph
from training.gan.networks import to_unit

IMAGES_SPEC: Final = tf.TensorSpec([None, *contract.IMAGE_SHAPE], tf.uint8, IMAGES)
CHECKED_SIZES: Final = (1, 2, 3, 7, 64, 256)
PIXEL_TOLERANCE: Final = 0.5 + 0.01
"""How far a pixel may lie from the network's unrounded value: its own rounding, and float32's noise at 255."""
TOLERANCE: Final = 1e-3
"""The same for logits, probabilities and features."""


@dataclass(frozen=True)
class Signature:
    """A tf.function of one input that returns outputs by name, and the outputs expected of it for ``inputs``."""

    graph: Any
    expected: Callable[[Any], Mapping[str, NDArray[Any]]]
    inputs: Sequence[NDArray[Any]]
    tolerance: float = TOLERANCE


def example_inputs(name: str, rows: int) -> NDArray[Any]:
    """Returns rows of noise for the generator, and random images for the other models."""
    if name == contract.GENERATOR:
        return noise_from_seeds(range(rows))
    return np.random.default_rng(rows).integers(0, 256, (rows, *contract.IMAGE_SHAPE), np.uint8)


def signatures_of(name: str, network: Any, calibration: Calibration) -> dict[str, Signature]:
    """Returns the signatures of a trained network in float32. ``calibration`` is the discriminator's."""
    inputs = [example_inputs(name, size) for size in CHECKED_SIZES]
    if name == contract.GENERATOR:

        def pixels(noise: Any) -> Mapping[str, NDArray[Any]]:
            images = np.asarray(network(noise, training=False), np.float64)
            return {IMAGES: images * contract.PIXEL_SCALE + contract.PIXEL_SCALE}

        return {SIGNATURE: Signature(generator_graph(network), pixels, inputs, PIXEL_TOLERANCE)}
    if name == contract.DISCRIMINATOR:

        @tf.function(input_signature=[IMAGES_SPEC])  # type: ignore[untyped-decorator]
        def score(images: Any) -> dict[str, Any]:
            logits = network(_checked(images), training=False)[:, 0]
            return {LOGITS: logits, PROBABILITIES: tf.sigmoid(calibration.slope * logits + calibration.offset)}

        def scores(images: Any) -> Mapping[str, NDArray[Any]]:
            logits = np.asarray(network(to_unit(images), training=False))[:, 0]
            return {LOGITS: logits, PROBABILITIES: calibration.probabilities(logits)}

        return {SIGNATURE: Signature(score, scores, inputs)}
    both = keras.Model(network.inputs[0], [network.get_layer(FEATURES).output, network.outputs[0]])

    @tf.function(input_signature=[IMAGES_SPEC])  # type: ignore[untyped-decorator]
    def classify(images: Any) -> dict[str, Any]:
        return {PROBABILITIES: tf.nn.softmax(both(_checked(images), training=False)[1])}

    @tf.function(input_signature=[IMAGES_SPEC])  # type: ignore[untyped-decorator]
    def features(images: Any) -> dict[str, Any]:
        return {FEATURES: both(_checked(images), training=False)[0]}

    def outputs(images: Any) -> Mapping[str, NDArray[Any]]:
        found, logits = both(to_unit(images), training=False)
        return {FEATURES: np.asarray(found), PROBABILITIES: softmax(np.asarray(logits, np.float64), axis=1)}

    return {SIGNATURE: Signature(classify, outputs, inputs), FEATURES: Signature(features, outputs, inputs)}


def _checked(images: Any) -> Any:
    """Images as the networks take them. TensorFlow Serving does not compare shapes, and some operations crash then."""
    return to_unit(tf.ensure_shape(images, IMAGES_SPEC.shape))


def story_signature(story: bytes) -> Signature:
    """Returns the signature ``story`` (serving/contract.py describes its tensors)."""
    return _paged({contract.STORY: np.frombuffer(story, np.uint8)}, contract.STORY_PAGE, contract.STORY_BYTES)


def index_signature(columns: Mapping[str, NDArray[Any]]) -> Signature:
    """Returns the signature ``seed_index`` of an index (:func:`training.publish.seed_index.build`)."""
    return _paged(columns, contract.INDEX_PAGE, contract.INDEXED_SEEDS, {contract.DIGITS: contract.NOT_INDEXED})


def _paged(
    columns: Mapping[str, NDArray[Any]], page: int, total_name: str, beyond: Mapping[str, int] | None = None
) -> Signature:
    """Serves columns of equal length by page: from page numbers, int64 [N], to rows [N, page], and to the length.

    A page number out of range gives the nearest page. ``beyond``, or zeros, fill the last page up.
    """
    total = len(next(iter(columns.values())))
    tables = {
        name: np.pad(column, (0, -total % page), constant_values=(beyond or {}).get(name, 0)).reshape(-1, page)
        for name, column in columns.items()
    }
    pages = -(-total // page)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.int64, contract.PAGES)])  # type: ignore[untyped-decorator]
    def read(page_numbers: Any) -> dict[str, Any]:
        found = tf.clip_by_value(page_numbers, 0, pages - 1)
        rows = {name: tf.gather(tf.constant(table), found) for name, table in tables.items()}
        return {**rows, total_name: tf.zeros_like(found) + total}

    return Signature(read, lambda _: {**tables, total_name: np.full(pages, total)}, [np.arange(pages)], 0.0)
