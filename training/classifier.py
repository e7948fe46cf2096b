"""The digit classifier: it labels generated images, and its penultimate layer gives the features of an evaluation."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import keras
import numpy as np
import tensorflow as tf
from keras import layers
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

from serving.contract import CLASSES, FEATURE_WIDTH, FEATURES, IMAGE_SHAPE, IMAGE_SIDE, LOGITS
from training.bar import task_bar
from training.data import Dataset, Images
from training.device_loop import DeviceLoop, on_device
from training.devices import describe
from training.evaluation.calibration import calibration_error, reliability
from training.evaluation.statistics import LEGIBLE_CONFIDENCE
from training.gan.networks import dtype_policy, float32_copy, logits_of, to_unit

MAP: Final = "map"
"""The layer of the last convolution's outputs."""
BATCH_SIZE: Final = 128
LEARNING_RATE: Final = 2e-3
"""AdamW's greatest step size (Loshchilov & Hutter 2019). It rises over the first steps, then falls along a cosine."""
WEIGHT_DECAY: Final = 1e-3
DROPOUT: Final = 0.3
"""The share of activations dropped before and after the features."""


@dataclass(frozen=True)
class ClassifierConfig:
    """How a classifier is trained. ``mixed_precision``: computed in bfloat16, with weights in float32."""

    epochs: int = 12
    seed: int = 0
    mixed_precision: bool = False


def build_classifier(pooling: Callable[[], Any] = layers.MaxPooling2D) -> Any:
    """The classifier, in the style of VGG: images float32 [N, 28, 28, 1] in -1 … 1 -> logits float32 [N, 10]."""
    relu = layers.ReLU
    convolutions = [
        *convolution(32, relu),
        *convolution(32, relu),
        pooling(),
        *convolution(64, relu),
        *convolution(64, relu),
        pooling(),
        *convolution(128, relu),
        pooling(),
    ]
    return classifier_of(convolutions, relu)


def convolution(channels: int, activation: Callable[[], Any], stride: int = 1) -> list[Any]:
    """The layers of a 3×3 convolution with batch normalisation."""
    return [
        layers.Conv2D(channels, 3, strides=stride, padding="same", use_bias=False),
        layers.BatchNormalization(momentum=0.9),
        activation(),
    ]


def classifier_of(convolutions: list[Any], activation: Callable[..., Any]) -> Any:
    """A classifier with these convolutions, and layers that are named ``map``, ``features`` and ``logits``."""
    return keras.Sequential(
        [
            keras.Input(IMAGE_SHAPE),
            *convolutions,
            layers.Flatten(name=MAP),
            layers.Dropout(DROPOUT),
            layers.Dense(FEATURE_WIDTH, use_bias=False),
            layers.BatchNormalization(momentum=0.9),
            activation(name=FEATURES),
            layers.Dropout(DROPOUT),
            layers.Dense(CLASSES, dtype="float32", name=LOGITS),
        ]
    )


def train_classifier(config: ClassifierConfig, dataset: Dataset) -> Any:
    """Trains the classifier in float32 on the training images, and calibrates it on the validation images."""
    trained = fit(build_classifier, config, *dataset.training, "classifier")
    _calibrate(trained, *dataset.validation)
    return trained


def fit(
    build: Callable[[], Any], config: ClassifierConfig, images: Images, labels: NDArray[np.uint8], name: str
) -> Any:
    """Builds a network and trains it to read digits, on distorted views of them. Returns it in float32."""
    batch_size = min(BATCH_SIZE, max(16, len(images) // 32))  # Few images need more steps an epoch.
    steps = len(images) // batch_size
    total, warmup = config.epochs * steps, min(200, config.epochs * steps // 10)
    keras.utils.set_random_seed(config.seed)
    with dtype_policy("mixed_bfloat16" if config.mixed_precision else "float32"):
        network = build()
    rate = keras.optimizers.schedules.CosineDecay(
        LEARNING_RATE / 20, max(1, total - warmup), warmup_target=LEARNING_RATE, warmup_steps=warmup
    )
    optimizer = keras.optimizers.AdamW(rate, weight_decay=WEIGHT_DECAY)
    optimizer.build(network.trainable_variables)

    images_of, digits = on_device(images), tf.constant(labels, tf.int64)

    def step(number: Any, rows: Any) -> Any:
        views = _distorted(to_unit(images_of(rows)), tf.stack([config.seed, number]))
        with tf.GradientTape() as tape:
            logits = network(views, training=True)
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(tf.gather(digits, rows), logits)
            loss = tf.reduce_mean(losses)
        optimizer.apply(tape.gradient(loss, network.trainable_variables), network.trainable_variables)
        return [loss]

    loop = DeviceLoop(step, len(images), batch_size, config.seed, figures=1)
    with task_bar(name, total) as advance:
        for losses in loop.run(0, [total]):
            advance(len(losses), f"loss {losses[-1, 0]:.4f}")
    return float32_copy(build, network.get_weights())


def _distorted(images: Any, seed: Any) -> Any:
    """Random affine views: turned by up to 0.2 rad, sheared by 0.15, each axis scaled by 12 %, moved by 2.5 pixels."""
    draws = tf.random.stateless_uniform([6, tf.shape(images)[0]], seed, -1.0, 1.0)
    angle, shear = draws[0] * 0.2, draws[1] * 0.15
    width, height = 1 + draws[2] * 0.12, 1 + draws[3] * 0.12
    right, down = draws[4] * 2.5, draws[5] * 2.5
    # Output (x, y) takes the input pixel at (a·x + b·y + c, d·x + e·y + f), about the image's centre.
    a, b = tf.cos(angle) * width, (shear - tf.sin(angle)) * width
    d, e = tf.sin(angle) * height, tf.cos(angle) * height
    centre = (IMAGE_SIDE - 1) / 2
    c, f = centre * (1 - a - b) + right, centre * (1 - d - e) + down
    zero = tf.zeros_like(angle)
    transforms = tf.stack([a, b, c, d, e, f, zero, zero], axis=1)
    return keras.ops.image.affine_transform(images, transforms, fill_value=-1.0)


def _calibrate(network: Any, images: NDArray[np.uint8], labels: NDArray[np.uint8]) -> None:
    """Divides the logits by the temperature with the smallest cross-entropy on the images (Guo et al. 2017, 4.2)."""
    logits = logits_of(network, images).astype(np.float64)

    def cross_entropy(log_temperature: float) -> float:
        scores = log_softmax(logits / np.exp(log_temperature), axis=1)
        return float(-scores[np.arange(len(labels)), labels].mean())

    temperature = np.exp(minimize_scalar(cross_entropy, bounds=(-2.0, 2.0), method="bounded").x)
    last = network.layers[-1]
    last.set_weights([np.float32(weights / temperature) for weights in last.get_weights()])


def measure_classifier(network: Any, images: NDArray[np.uint8], labels: NDArray[np.uint8]) -> dict[str, Any]:
    """Measures how well the network classifies images that it was not trained on, and how well it is calibrated."""
    probabilities = softmax(logits_of(network, images).astype(np.float64), axis=1)
    confidence, right = probabilities.max(1), probabilities.argmax(1) == labels
    legible = confidence >= LEGIBLE_CONFIDENCE
    return {
        "images": len(images),
        "accuracy": float(right.mean()),
        "expected_calibration_error": calibration_error(reliability(confidence, right)),
        "legible": float(legible.mean()),
        "accuracy_when_legible": float(right[legible].mean()) if legible.any() else None,
    }


def classifier_facts(config: ClassifierConfig, dataset: Dataset, network: Any) -> dict[str, Any]:
    """What the classifier's model card says: how it was trained, on what, and its figures on the test images."""
    return {
        "training": {
            **asdict(config),
            "data": "MNIST by Keras's loader" if dataset.source == "keras" else Path(dataset.source).name,
            "data_sha256": dataset.fingerprint(),
            "images": len(dataset.training[0]),
            "validation_images": len(dataset.validation[0]),
            "hold_out": dataset.hold_out,
            "parameters": int(network.count_params()),
            "tensorflow": tf.__version__,
            "device": describe(),
        },
        "test": measure_classifier(network, dataset.x_test, dataset.y_test),
    }
