"""The inference graphs: the trained networks as they are served, with uint8 pixels outside."""

from typing import Any, Final

import keras
import tensorflow as tf

from serving.contract import (
    CLASSIFIER,
    FEATURES,
    GENERATOR,
    IMAGE_SHAPE,
    IMAGES,
    LOGITS,
    PROBABILITIES,
    SIGNATURE,
)
from training.evaluation.calibration import Calibration
from training.gan.generator_graph import generator_graph
from training.pixels import to_unit

IMAGES_SPEC: Final = tf.TensorSpec([None, *IMAGE_SHAPE], tf.uint8, IMAGES)


class InferenceModule(tf.Module):  # type: ignore[misc]  # TensorFlow ships no types
    """A model as it is served.

    Attributes:
        graphs: signature name -> a tf.function with one input, whose outputs are a dictionary; by the contract.
        weights: the variables that the graphs read.
    """

    def __init__(self, graphs: dict[str, Any], network: Any = None) -> None:
        super().__init__()
        self.graphs = graphs
        self.weights = [weight.value for weight in network.weights] if network else []


def inference_module(name: str, network: Any, calibration: Calibration | None = None) -> InferenceModule:
    """The graphs that are exported for a trained network in float32. No calibration: the sigmoid of the logits."""
    if name == GENERATOR:
        return InferenceModule({SIGNATURE: generator_graph(network)})
    if name == CLASSIFIER:
        return _classifier_module(network)
    return _discriminator_module(network, calibration or Calibration())


def checked_images(images: Any) -> Any:
    """Images uint8 [N, 28, 28, 1] as the networks take them. Other shapes are an InvalidArgumentError.

    TensorFlow Serving does not compare shapes with the signature, and some operations crash on the wrong rank.
    """
    return to_unit(tf.ensure_shape(images, IMAGES_SPEC.shape))


def _discriminator_module(network: Any, calibration: Calibration) -> InferenceModule:
    @tf.function(input_signature=[IMAGES_SPEC])  # type: ignore[untyped-decorator]
    def score(images: Any) -> dict[str, Any]:
        logits = network(checked_images(images), training=False)[:, 0]
        return {LOGITS: logits, PROBABILITIES: tf.sigmoid(calibration.slope * logits + calibration.offset)}

    return InferenceModule({SIGNATURE: score}, network)


def _classifier_module(network: Any) -> InferenceModule:
    both = keras.Model(network.inputs[0], [network.get_layer(FEATURES).output, network.outputs[0]])

    @tf.function(input_signature=[IMAGES_SPEC])  # type: ignore[untyped-decorator]
    def classify(images: Any) -> dict[str, Any]:
        return {PROBABILITIES: tf.nn.softmax(both(checked_images(images), training=False)[1])}

    @tf.function(input_signature=[IMAGES_SPEC])  # type: ignore[untyped-decorator]
    def features(images: Any) -> dict[str, Any]:
        return {FEATURES: both(checked_images(images), training=False)[0]}

    return InferenceModule({SIGNATURE: classify, FEATURES: features}, network)
