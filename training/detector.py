"""The discriminator as a detector: after the GAN training it continues to learn, with the generator fixed.

At the end of a good run the discriminator's logit says next to nothing. With the generator fixed, the same layers learn
to distinguish real digits from its images, those of earlier generators, and other images that people send.
"""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from serving.contract import IMAGE_SHAPE, IMAGES, NOISE_DIM
from serving.files import write_atomically
from training.bar import task_bar
from training.data import Dataset, Images, in_batches
from training.device_loop import DeviceLoop, on_device
from training.evaluation import calibration, negative_examples
from training.evaluation.score import score_figures
from training.gan.generator_graph import generator_graph
from training.gan.networks import build_discriminator, float32_copy, logits_of, read_weights, to_unit, write_weights

Generate = Callable[[Any], Any]
"""From noise, float32 [N, 100], to pixels as they are served, uint8 [N, 28, 28, 1]; runs inside a tf.function."""

DIRECTORY: Final = "detector"
GAIN: Final = 4.0
"""How many times as fast the first layer's kernel may grow, since it has to distinguish neighbouring levels of gray."""
OTHERS_STEPS: Final = 2000
"""After so many steps, the same negative examples and images of earlier generators come again."""
BLACK_WEIGHT: Final = 0.02
"""The weight of a black image's loss in each step, besides the batch. Its logit is the zero of all others."""
_VALIDATION, _TEST = 1, 2
"""What fakes are fresh for: the second number of their seed. Training takes (seed, 3 + step)."""


@dataclass(frozen=True)
class DetectorConfig:
    """How the detector is trained: steps, the images of each kind in a batch, and the optimiser.

    ``fakes`` are the fixed generator's, from fresh noise; ``impostors`` are negative examples. ``average`` is the decay
    a step of the average of the weights, which is what is kept (Polyak & Juditsky 1992). ``xla`` is that of the run.
    """

    steps: int = 15_000
    real: int = 128
    fakes: int = 96
    earlier: int = 16
    impostors: int = 24
    learning_rate: float = 2e-3
    average: float = 0.999
    seed: int = 0
    xla: bool = False


def detector_of_run(
    run: Path, name: str, discriminator: Any, generators: Sequence[Any], dataset: Dataset, config: DetectorConfig
) -> tuple[Any, dict[str, Any]]:
    """Returns the run's detector: the one of that name in the run directory, or else one trained now and kept there.

    The arguments are those of :func:`train_detector`, as Keras networks in float32.
    """
    weights, facts = (run / DIRECTORY / f"{name}{suffix}" for suffix in (".npz", ".json"))
    if facts.exists():
        network = float32_copy(build_discriminator, read_weights(weights))
        return network, json.loads(facts.read_text("utf-8"))
    # Within the training step's own graph: one tf.function for each of them would count as tracing too often.
    graphs = [generator_graph(generator).python_function for generator in generators]
    pixels = [lambda noise, graph=graph: graph(noise)[IMAGES] for graph in graphs]
    trained = train_detector(discriminator.get_weights(), pixels, dataset, config)
    weights.parent.mkdir(parents=True, exist_ok=True)
    write_weights(weights, trained[0].get_weights())
    write_atomically(facts, json.dumps(trained[1], indent=2) + "\n")
    return trained


def train_detector(
    weights: list[NDArray[Any]], generators: Sequence[Generate], dataset: Dataset, config: DetectorConfig
) -> tuple[Any, dict[str, Any]]:
    """Trains the discriminator's layers to distinguish real digits from all other images, and calibrates the logit.

    It begins with the ``weights`` of the discriminator. The first of the ``generators`` is the one that is served,
    others are earlier ones. The validation images calibrate it; the test images are used once, for the figures. Returns
    the network in float32, and what the model card says of it.
    """
    started = time.monotonic()
    keras.utils.set_random_seed(config.seed)
    network = float32_copy(build_discriminator, weights)
    _train(network, generators, *dataset.training, config)

    validation, _ = dataset.validation
    fakes = fresh(generators[0], len(validation), (config.seed, _VALIDATION))
    fitted = calibration.fit(*(logits_of(network, images)[:, 0] for images in (validation, fakes)))

    def score(images: Images) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        logits = logits_of(network, images)[:, 0]
        return logits, fitted.probabilities(logits)

    test_fakes = fresh(generators[0], len(dataset.x_test), (config.seed, _TEST))
    return network, {
        "config": asdict(config),
        "earlier_generators": len(generators) - 1,
        "calibration": asdict(fitted),
        "validation": score_figures(score, validation, fakes, config.seed),
        "test": score_figures(score, dataset.x_test, test_fakes, config.seed),
        "seconds": round(time.monotonic() - started, 1),
    }


def fresh(generate: Generate, count: int, seed: tuple[int, int]) -> Images:
    """New images of a generator, uint8 [count, 28, 28]; the same seed gives the same ones."""
    images: Images = in_batches(generate, tf.random.stateless_normal([count, NOISE_DIM], seed))
    return images[..., 0]


def _train(
    network: Any, generators: Sequence[Generate], images: Images, labels: NDArray[np.uint8], config: DetectorConfig
) -> None:
    """Trains the network in place; it ends with the average of its weights.

    What distinguishes generated digits best is faint: a level or two of gray where MNIST is black. Beside the large and
    constant activations of black itself (-1 inside, and 0 beyond the frame), its gradient would be lost. So the same
    function is trained in other coordinates (LeCun et al. 1998, "Efficient BackProp", section 4.3): the first layer's
    kernel, as a share of GAIN, acts on ink, which is 0 for black, and the logit is measured from that of a black image.
    """
    served, *earlier = generators
    first, last = network.layers[0], network.layers[-1]
    black = -tf.ones([1, *IMAGE_SHAPE])
    kernel = keras.Variable(first.kernel / GAIN)
    ink_bias = keras.Variable(first.bias - tf.reduce_sum(first.kernel, axis=(0, 1, 2)))
    offset = keras.Variable(network(black, training=False)[0, 0])
    _, _, *rest, _ = network.trainable_variables  # Those that the three above stand for are left out.
    variables = [kernel, ink_bias, offset, *rest]
    optimizer = keras.optimizers.Adam(
        keras.optimizers.schedules.CosineDecay(config.learning_rate, config.steps),
        beta_2=0.99,
        epsilon=1e-8,
        use_ema=True,
        ema_momentum=max(0.0, min(config.average, 1 - 10 / config.steps)),  # A short training is averaged over its end.
    )
    optimizer.build(variables)

    def put_first_layer() -> None:
        first.kernel.assign(GAIN * kernel.value)
        first.bias.assign(ink_bias.value + GAIN * tf.reduce_sum(kernel.value, axis=(0, 1, 2)))

    real_images = on_device(images)
    others = tf.constant(_other_images(earlier, images, labels, config)[..., None])
    fakes = config.fakes if earlier else config.fakes + config.earlier

    def step(number: Any, rows: Any) -> Any:
        fake = served(tf.random.stateless_normal([fakes, NOISE_DIM], tf.stack([config.seed, 3 + number])))
        # A slice here would make XLA compile the steps again in each call.
        batch = to_unit(tf.concat([real_images(rows), fake, tf.gather(others, number % len(others))], axis=0))
        truth = tf.concat([tf.ones(config.real), tf.zeros(batch.shape[0] - config.real)], axis=0)
        with tf.GradientTape() as tape:
            answers = network(tf.concat([batch, black], axis=0), training=True)[:, 0]
            logits = answers[:-1] - answers[-1] + offset.value
            loss = tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(truth, logits))
            loss += BLACK_WEIGHT * tf.nn.softplus(offset.value)
        by_kernel, by_bias, *others_by = tape.gradient(loss, [first.kernel, first.bias, offset, *rest])
        optimizer.apply([GAIN * (by_kernel + by_bias), by_bias, *others_by], variables)
        put_first_layer()
        return [loss]

    loop = DeviceLoop(step, len(images), config.real, config.seed, figures=1, xla=config.xla)
    with task_bar("detector", config.steps) as advance:
        for losses in loop.run(0, [config.steps]):
            advance(len(losses), f"loss {losses[-1, 0]:.4f}")
    optimizer.finalize_variable_values(variables)
    put_first_layer()
    last.bias.assign(last.bias + offset - network(black, training=False)[0])


def _other_images(
    earlier: Sequence[Generate], images: Images, labels: NDArray[np.uint8], config: DetectorConfig
) -> NDArray[np.uint8]:
    """The negative examples and images of earlier generators: uint8 [steps, images, 28, 28], OTHERS_STEPS at most."""
    steps = min(config.steps, OTHERS_STEPS)
    rng = np.random.default_rng(config.seed)
    rows = rng.integers(len(images), size=[steps, config.impostors])
    found = np.stack([negative_examples.mixed(images[each], labels[each], rng) for each in rows])
    if earlier:
        turns = -(-steps // len(earlier))
        fakes = [fresh(made, turns * config.earlier, (config.seed, -1 - k)) for k, made in enumerate(earlier)]
        by_turn = np.stack([each.reshape(turns, config.earlier, *images.shape[1:]) for each in fakes], axis=1)
        found = np.concatenate([found, by_turn.reshape(-1, *by_turn.shape[2:])[:steps]], axis=1)
    return found
