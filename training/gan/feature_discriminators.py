"""Feature discriminators: they judge an image by its features, which digit classifiers extract from it.

They are projected discriminators (Sauer et al. 2021): the classifiers are trained once and then left alone, so their
features know from the start what a stroke and a seven are, and the generator learns much sooner what is wrong. There
are two classifiers, of different shapes, because what one overlooks the other may see (Kumari et al. 2022).
"""

from collections.abc import Callable
from functools import partial
from itertools import chain
from typing import Any, Final

import keras
import numpy as np
import tensorflow as tf
from keras import layers
from numpy.typing import NDArray

from serving.contract import FEATURES, IMAGE_SHAPE, LOGITS
from training.classifier import MAP, ClassifierConfig, build_classifier, classifier_of, convolution, fit
from training.config import TrainingConfig
from training.data import in_batches
from training.gan.losses import AdversarialLosses, adversarial_losses
from training.gan.networks import LEAK, to_unit

FEATURE_LAYERS: Final = ((MAP, FEATURES), (FEATURES, LOGITS))
"""The layers that are judged, of the small classifier below and of one built as the served classifier is."""
HEAD_WIDTH: Final = 256
FEATURE_EPOCHS: Final = 6
_MEASURED: Final = 20_000


class FeatureDiscriminators(tf.Module):  # type: ignore[misc]  # TensorFlow ships no types
    """Discriminators of an image's features, centred and scaled: one head for each layer of FEATURE_LAYERS."""

    def __init__(self, config: TrainingConfig) -> None:
        """Builds the networks; :meth:`prepare` must follow, or a checkpoint."""
        super().__init__()
        self._config = config
        self._classifiers = [build() for build in _BUILDERS]
        self.networks = []
        for classifier, names in zip(self._classifiers, FEATURE_LAYERS, strict=True):
            classifier.trainable = False
            outputs = [classifier.get_layer(name).output for name in names]
            self.networks.append(keras.Model(classifier.inputs[0], outputs))
        widths = [output.shape[1] for network in self.networks for output in network.outputs]
        self.centres = [tf.Variable(tf.zeros(width)) for width in widths]
        self.scales = [tf.Variable(tf.ones(width)) for width in widths]
        self.heads = [_build_head(width) for width in widths]
        self.trainable_weights = [weight for head in self.heads for weight in head.trainable_variables]

    def prepare(self, images: NDArray[np.uint8], labels: NDArray[np.uint8]) -> None:
        """Trains the feature networks to read digits, on images uint8 [N, 28, 28], and measures their features."""
        for k, (classifier, build) in enumerate(zip(self._classifiers, _BUILDERS, strict=True)):
            # A seed of its own, so that no feature network is the served classifier again.
            config = ClassifierConfig(
                epochs=FEATURE_EPOCHS,
                seed=(self._config.seed + 1000 * (k + 1)) % 2**31,
                mixed_precision=self._config.mixed_precision,
            )
            name = f"features {k + 1}/{len(_BUILDERS)}"
            classifier.set_weights(fit(build, config, images, labels, name).get_weights())
        scaled = to_unit(images[:_MEASURED].reshape(-1, *IMAGE_SHAPE))
        found = in_batches(lambda batch: [np.float32(each) for each in self._raw_features(batch)], scaled)
        for centre, scale, values in zip(self.centres, self.scales, found, strict=True):
            spread = values.std(0)
            centre.assign(values.mean(0))
            # Each layer's features have a length of about 1; those that hardly vary are kept from being blown up.
            scale.assign((spread + 0.05 * values.std()) * np.sqrt(len(spread)))

    def losses(self, reals: Any, fakes: Any) -> list[AdversarialLosses]:
        """The losses of each head, for real images and generated ones, float32 [N, 28, 28, 1] in -1 … 1 each."""
        recipe = self._config.recipe
        return [
            adversarial_losses(recipe.loss, head, real, fake, with_penalty=recipe.feature_penalty > 0)
            for head, real, fake in zip(self.heads, self.features(reals), self.features(fakes), strict=True)
        ]

    def features(self, images: Any) -> list[Any]:
        """The features of images float32 [N, 28, 28, 1], centred and scaled: float32 [N, width] for each head."""
        normed = zip(self._raw_features(images), self.centres, self.scales, strict=True)
        return [(tf.cast(each, tf.float32) - centre) / scale for each, centre, scale in normed]

    def _raw_features(self, images: Any) -> list[Any]:
        return [features for network in self.networks for features in network(images, training=False)]


def build_small_classifier() -> Any:
    """A classifier of a few strided convolutions: images float32 [N, 28, 28, 1] in -1 … 1 -> logits float32 [N, 10]."""
    leaky_relu = partial(layers.LeakyReLU, LEAK)
    blocks = [convolution(channels, leaky_relu, stride) for channels, stride in ((32, 2), (64, 2), (64, 1), (128, 2))]
    return classifier_of(list(chain(*blocks)), leaky_relu)


class MaxPooling2D(layers.MaxPooling2D):  # type: ignore[misc]  # Keras ships no types
    """Keras's max pooling of 2×2 places, made of operations that XLA compiles deterministically."""

    def call(self, inputs: Any) -> Any:
        """float [N, height, width, channels] -> float [N, height // 2, width // 2, channels]."""
        _, height, width, channels = inputs.shape
        rows, columns = height // 2, width // 2
        places = tf.nn.space_to_depth(inputs[:, : 2 * rows, : 2 * columns], 2)
        return tf.reduce_max(tf.reshape(places, [-1, rows, columns, 4, channels]), axis=3)


_BUILDERS: Final[tuple[Callable[[], Any], ...]] = (
    build_small_classifier,
    partial(build_classifier, pooling=MaxPooling2D),
)


def _build_head(width: int) -> Any:
    return keras.Sequential(
        [
            keras.Input((width,)),
            layers.Dense(HEAD_WIDTH),
            layers.LeakyReLU(LEAK),
            layers.Dense(HEAD_WIDTH),
            layers.LeakyReLU(LEAK),
            layers.Dense(1, dtype="float32"),
        ]
    )
