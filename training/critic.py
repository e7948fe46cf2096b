"""Critics: what a network that tells real from generated gives to itself, and to the generator.

The discriminator is a critic of images. Beside it, a recipe may ask for critics of *features*: what a small classifier
of digits, trained once and then left alone, makes of an image. They are projected discriminators (Sauer et al. 2021):
the features know from the start what a stroke and a seven are, so the generator hears much sooner what is wrong.
"""

from dataclasses import dataclass
from typing import Any, Final

import keras
import numpy as np
import tensorflow as tf
from keras import layers
from numpy.typing import NDArray

from serving.contract import CLASSES, IMAGE_SHAPE, PIXEL_SCALE
from training.classifier import ClassifierConfig, fit
from training.config import TrainingConfig
from training.losses import LOSSES, slope_penalty
from training.networks import LEAK

FEATURE_LAYERS: Final = {"map": 4 * 4 * 128, "vector": 128}
"""The layers of the feature network that are judged, and their widths."""
HEAD_WIDTH: Final = 256
FEATURE_EPOCHS: Final = 6
_MEASURED: Final = 20_000
_CHUNK: Final = 500


@dataclass(frozen=True)
class Judgement:
    """What came of judging real things and as many generated ones.

    Attributes:
        gradients: of the critic's variables by its loss and penalty.
        fakes_gradient: of the generated things by the generator's loss, in their shape.
        real_logits: float32 [N].
        fake_logits: float32 [N].
        losses: float32 [2], the generator's and the critic's, without the penalty.
    """

    gradients: list[Any]
    fakes_gradient: Any
    real_logits: Any
    fake_logits: Any
    losses: Any


def judge(critic: Any, reals: Any, fakes: Any, *, loss: str, penalty: float, batch_size: int) -> Judgement:
    """Passes real and generated things through a critic once, forward and back, for the generator's sake as well.

    A loss's gradient by a thing is its derivative by that thing's logit times the slope of the logit. So the generator
    needs no way back through the critic of its own: the critic's way, or its penalty's, has the slopes already.

    Gradients and losses are sums over these things, divided by ``batch_size``: replicas' parts add up.

    Args:
        critic: a Keras network, [N, …] -> logits float32 [N, 1].
        reals: float32 [N, …].
        fakes: float32 [N, …].
        loss: a name in LOSSES.
        penalty: the factor of the zero-centred gradient penalty on both.
        batch_size: how many of each all replicas have together.
    """
    functions = LOSSES[loss]
    things = tf.concat([reals, fakes], axis=0)
    with tf.GradientTape() as tape:
        if penalty:
            with tf.GradientTape() as slope_tape:
                slope_tape.watch(things)
                logits = critic(things, training=True)[:, 0]
            slopes = slope_tape.gradient(logits, things)
            surcharge = penalty * tf.reduce_sum(slope_penalty(slopes))
        else:
            tape.watch(things)
            logits = critic(things, training=True)[:, 0]
            surcharge = 0.0
        objective = (tf.reduce_sum(functions.discriminator(*tf.split(logits, 2))) + surcharge) / batch_size

    real_logits, fake_logits = tf.split(logits, 2)
    with tf.GradientTape(persistent=True) as loss_tape:
        loss_tape.watch(fake_logits)
        g_loss = tf.reduce_sum(functions.generator(real_logits, fake_logits)) / batch_size
        c_loss = tf.reduce_sum(functions.discriminator(real_logits, fake_logits)) / batch_size
    derivative = loss_tape.gradient(g_loss, fake_logits)
    if penalty:
        gradients = tape.gradient(objective, critic.trainable_variables)
    else:
        gradients, slopes = tape.gradient(objective, [critic.trainable_variables, things])
        derivative = tf.math.divide_no_nan(derivative, loss_tape.gradient(c_loss, fake_logits))
    fake_slopes = tf.split(slopes, 2)[1]
    derivative = tf.reshape(derivative, [-1] + [1] * (len(fake_slopes.shape) - 1))
    return Judgement(gradients, derivative * fake_slopes, real_logits, fake_logits, tf.stack([g_loss, c_loss]))


class FeatureCritics(tf.Module):  # type: ignore[misc]  # TensorFlow ships no types
    """Critics of an image's features: one a layer of :data:`FEATURE_LAYERS`.

    Attributes:
        network: the feature network, images float32 [N, 28, 28, 1] in -1 … 1 -> a list of features float32 [N, width].
        heads: a critic of each.
    """

    def __init__(self, config: TrainingConfig, optimizer: Any) -> None:
        """Builds the networks; :meth:`prepare` must follow, or a checkpoint."""
        super().__init__()
        self._recipe = config.recipe
        self._classifier = build_feature_classifier()
        self._classifier.trainable = False
        self.network = keras.Model(
            self._classifier.inputs[0], [self._classifier.get_layer(name).output for name in FEATURE_LAYERS]
        )
        self.centres = [tf.Variable(tf.zeros(width)) for width in FEATURE_LAYERS.values()]
        self.scales = [tf.Variable(tf.ones(width)) for width in FEATURE_LAYERS.values()]
        self.heads = [_build_head(width) for width in FEATURE_LAYERS.values()]
        self._variables = [variable for head in self.heads for variable in head.trainable_variables]
        self.optimizer = optimizer
        self.optimizer.build(self._variables)

    def prepare(self, images: NDArray[np.uint8], labels: NDArray[np.uint8], seed: int) -> None:
        """Trains the feature network to read digits, and measures how its features are spread.

        Args:
            images: uint8 [N, 28, 28], the training images without the validation images.
            labels: uint8 [N].
            seed: root of weights, order and augmentation.
        """
        config = ClassifierConfig(epochs=FEATURE_EPOCHS, seed=seed)
        trained = fit(build_feature_classifier, config, images, labels, "features")
        self._classifier.set_weights(trained.get_weights())
        scaled = images[:_MEASURED].reshape(-1, *IMAGE_SHAPE) / np.float32(PIXEL_SCALE) - 1
        parts = [self.network(scaled[k : k + _CHUNK], training=False) for k in range(0, len(scaled), _CHUNK)]
        for centre, scale, features in zip(self.centres, self.scales, zip(*parts, strict=True), strict=True):
            values = np.concatenate([np.asarray(part, np.float32) for part in features])
            spread = values.std(0)
            centre.assign(values.mean(0))
            # Each layer's features have a length of about 1; those that hardly vary are kept from being blown up.
            scale.assign((spread + 0.05 * values.std()) * np.sqrt(len(spread)))

    def judge(self, reals: Any, fakes: Any) -> tuple[list[Any], Any]:
        """Judges the features of real images and generated ones, float32 [N, 28, 28, 1] in -1 … 1 each.

        Returns:
            The gradients of the heads' variables; the gradient of the generated images by the generator's loss.
        """
        real_features = self._features(reals)
        with tf.GradientTape() as tape:
            tape.watch(fakes)
            fake_features = self._features(fakes)
        judgements = [
            judge(
                head,
                real,
                fake,
                loss=self._recipe.loss,
                penalty=self._recipe.feature_penalty,
                batch_size=self._recipe.batch_size,
            )
            for head, real, fake in zip(self.heads, real_features, fake_features, strict=True)
        ]
        gradients = [gradient for judgement in judgements for gradient in judgement.gradients]
        directions = [judgement.fakes_gradient for judgement in judgements]
        return gradients, tape.gradient(fake_features, fakes, output_gradients=directions)

    def apply(self, gradients: list[Any]) -> None:
        """Moves the heads."""
        self.optimizer.apply(gradients, self._variables)

    def _features(self, images: Any) -> list[Any]:
        features = self.network(images, training=False)
        normed = zip(features, self.centres, self.scales, strict=True)
        return [(tf.cast(each, tf.float32) - centre) / scale for each, centre, scale in normed]


def build_feature_classifier(dropout: float = 0.3) -> Any:
    """A small classifier for its features: images float32 [N, 28, 28, 1] in -1 … 1 -> logits float32 [N, 10].

    Args:
        dropout: share of activations dropped while it is trained.
    """

    def block(channels: int, stride: int) -> list[Any]:
        return [
            layers.Conv2D(channels, 3, strides=stride, padding="same", use_bias=False),
            layers.BatchNormalization(momentum=0.9),
            layers.LeakyReLU(LEAK),
        ]

    return keras.Sequential(
        [
            keras.Input(IMAGE_SHAPE),
            *block(32, 2),
            *block(64, 2),
            *block(64, 1),
            *block(128, 2),
            layers.Flatten(name="map"),
            layers.Dropout(dropout),
            layers.Dense(FEATURE_LAYERS["vector"], use_bias=False),
            layers.BatchNormalization(momentum=0.9),
            layers.LeakyReLU(LEAK, name="vector"),
            layers.Dropout(dropout),
            layers.Dense(CLASSES, dtype="float32"),
        ],
        name="feature_classifier",
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
