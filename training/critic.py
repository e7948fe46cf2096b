"""Critics: what a network that tells real from generated gives to itself, and to the generator.

The discriminator is a critic of images. Beside it, a recipe may ask for critics of *features*: what classifiers of
digits, trained once and then left alone, make of an image. They are projected discriminators (Sauer et al. 2021): the
features know from the start what a stroke and a seven are, so the generator hears much sooner what is wrong. There are
two classifiers, of different shapes, because what one overlooks the other may see (Kumari et al. 2022).
"""

from dataclasses import dataclass
from typing import Any, Final

import keras
import numpy as np
import tensorflow as tf
from keras import layers
from numpy.typing import NDArray

from serving.contract import CLASSES, FEATURES, IMAGE_SHAPE, LOGITS, PIXEL_SCALE
from training.classifier import ClassifierConfig, build_classifier, fit
from training.config import TrainingConfig
from training.losses import LOSSES, slope_penalty
from training.networks import LEAK

FEATURE_LAYERS: Final = (("map", "vector"), (FEATURES, LOGITS))
"""The layers that are judged, of the small classifier below and of one built as the served classifier is."""
FEATURE_WIDTHS: Final = {"map": 4 * 4 * 128, "vector": 128, FEATURES: 128, LOGITS: CLASSES}
HEAD_WIDTH: Final = 256
FEATURE_EPOCHS: Final = 6
FEATURE_DROPOUT: Final = 0.3
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
        networks: the feature networks, images float32 [N, 28, 28, 1] in -1 … 1 -> a list of features [N, width].
        centres: the mean of each layer's features, float32 [width].
        scales: what each layer's features are divided by, float32 [width].
        heads: a critic of each layer.
    """

    def __init__(self, config: TrainingConfig, optimizer: Any) -> None:
        """Builds the networks; :meth:`prepare` must follow, or a checkpoint."""
        super().__init__()
        self._config = config
        self._classifiers = [build(FEATURE_DROPOUT) for build in _BUILDERS]
        self.networks = [
            _feature_network(classifier, names)
            for classifier, names in zip(self._classifiers, FEATURE_LAYERS, strict=True)
        ]
        widths = [FEATURE_WIDTHS[name] for names in FEATURE_LAYERS for name in names]
        self.centres = [tf.Variable(tf.zeros(width)) for width in widths]
        self.scales = [tf.Variable(tf.ones(width)) for width in widths]
        self.heads = [_build_head(width) for width in widths]
        self._variables = [variable for head in self.heads for variable in head.trainable_variables]
        self.optimizer = optimizer
        self.optimizer.build(self._variables)

    def prepare(self, images: NDArray[np.uint8], labels: NDArray[np.uint8]) -> None:
        """Trains the feature networks to read digits, and measures how their features are spread.

        Args:
            images: uint8 [N, 28, 28], the training images without the validation images.
            labels: uint8 [N].
        """
        for k, (classifier, build) in enumerate(zip(self._classifiers, _BUILDERS, strict=True)):
            # A seed of its own, so that no feature network is the served classifier again.
            config = ClassifierConfig(
                epochs=FEATURE_EPOCHS,
                seed=(self._config.seed + 1000 * (k + 1)) % 2**31,
                mixed_precision=self._config.mixed_precision,
            )
            name = f"features {k + 1}/{len(_BUILDERS)}"
            classifier.set_weights(fit(build, config, images, labels, name).get_weights())
        scaled = images[:_MEASURED].reshape(-1, *IMAGE_SHAPE) / np.float32(PIXEL_SCALE) - 1
        parts = [self._raw_features(scaled[k : k + _CHUNK]) for k in range(0, len(scaled), _CHUNK)]
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
                loss=self._config.recipe.loss,
                penalty=self._config.recipe.feature_penalty,
                batch_size=self._config.recipe.batch_size,
            )
            for head, real, fake in zip(self.heads, real_features, fake_features, strict=True)
        ]
        gradients = [gradient for judgement in judgements for gradient in judgement.gradients]
        directions = [judgement.fakes_gradient for judgement in judgements]
        return gradients, tape.gradient(fake_features, fakes, output_gradients=directions)

    def apply(self, gradients: list[Any]) -> None:
        """Moves the heads."""
        self.optimizer.apply(gradients, self._variables)

    def _raw_features(self, images: Any) -> list[Any]:
        return [features for network in self.networks for features in network(images, training=False)]

    def _features(self, images: Any) -> list[Any]:
        normed = zip(self._raw_features(images), self.centres, self.scales, strict=True)
        return [(tf.cast(each, tf.float32) - centre) / scale for each, centre, scale in normed]


def build_small_classifier(dropout: float = 0.0) -> Any:
    """A classifier of a few strided convolutions: images float32 [N, 28, 28, 1] in -1 … 1 -> logits float32 [N, 10].

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
            layers.Dense(FEATURE_WIDTHS["vector"], use_bias=False),
            layers.BatchNormalization(momentum=0.9),
            layers.LeakyReLU(LEAK, name="vector"),
            layers.Dropout(dropout),
            layers.Dense(CLASSES, dtype="float32"),
        ],
        name="small_classifier",
    )


_BUILDERS: Final = (build_small_classifier, build_classifier)


def _feature_network(classifier: Any, names: tuple[str, ...]) -> Any:
    classifier.trainable = False
    layers_by_name = {**{layer.name: layer for layer in classifier.layers}, LOGITS: classifier.layers[-1]}
    return keras.Model(classifier.inputs[0], [layers_by_name[name].output for name in names])


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
