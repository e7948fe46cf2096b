"""SavedModels that can be checked in one's head, made with TensorFlow, and ways to break them.

The small models that follow the contract have all its signatures. All pixels of a generated image are 25 × its digit,
except the first: it is the generator's ``shift``, by which versions differ. The classifier reads the digit with a
confidence of 0.91, and the index says 0.97: so the confidence shows where a label comes from. The discriminator's
probability is calibrated: one half is at a logit of 2.
"""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from tensorflow_serving.apis.predict_pb2 import PredictRequest
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog, PredictLog

from serving import contract
from serving.contract import CLASSES, FEATURES, IMAGE_SHAPE, IMAGES, INDEX_PAGE, SIGNATURE
from serving.noise import noise_from_seeds
from training.publish.signatures import story_signature

VARIABLES = "variables/variables.data-00000-of-00001"
FLOATS = tf.TensorSpec([None], tf.float32)
DTYPES = ("float32", "float64", "float16", "uint8", "int8", "int16", "int32", "int64", "bool")
"""NumPy's names of the dtypes that both servers take."""


def save(path: Path, module: tf.Module, **signatures: tuple[Callable[..., Any], Mapping[str, tf.TensorSpec]]) -> None:
    """Saves a module with signatures: a function, and the inputs that it takes."""
    traced = {name: tf.function(run).get_concrete_function(**inputs) for name, (run, inputs) in signatures.items()}
    tf.saved_model.save(module, str(path), traced)


def save_again(version: Path, target: Path, **signatures: Any) -> None:
    """Loads the SavedModel in a version directory and saves it, with more ``signatures``, in ``target``."""
    module = tf.Module()
    module.saved = tf.saved_model.load(str(version))
    tf.saved_model.save(module, str(target), signatures={**module.saved.signatures, **signatures})


def save_half_plus(path: Path, constant: float) -> None:
    """``serving_default``: y = x / 2 + constant. ``both``: the same, and z = 2 x. ``sum``: total = a + b."""
    module = tf.Module()
    module.half, module.constant = tf.Variable(0.5), tf.Variable(constant)

    def half_plus(x: Any) -> Any:
        return {"y": x * module.half + module.constant}

    save(
        path,
        module,
        serving_default=(half_plus, {"x": FLOATS}),
        both=(lambda x: {**half_plus(x), "z": 2 * x}, {"x": FLOATS}),
        sum=(lambda a, b: {"total": a + b}, {"a": FLOATS, "b": FLOATS}),
    )


def save_echo(path: Path, *dtypes: str) -> None:
    """A signature for each dtype, by its name: y = x."""
    echo = {
        dtype: (lambda x: {"y": tf.identity(x)}, {"x": tf.TensorSpec([None], tf.dtypes.as_dtype(dtype))})
        for dtype in dtypes
    }
    save(path, tf.Module(), **echo)


def save_witness(path: Path) -> None:
    """Signatures with outputs that show how they were run.

    ``serving_default``: ``rows`` [N] is N in each row.
    ``item``: y = (10, 20, 30)[index]; any other index fails. ``dot``: y [N] = x [N, 3] · (1, 2, 3).
    ``unbatchable``: y [] = the sum of x.
    """

    def count(x: Any) -> Any:
        return {"rows": tf.cast(tf.cast(tf.shape(x)[:1], tf.float32) + 0 * x, tf.int32)}

    def dot(x: Any) -> Any:
        return {"y": tf.squeeze(tf.matmul(x, [[1.0], [2.0], [3.0]]), 1)}

    save(
        path,
        tf.Module(),
        serving_default=(count, {"x": FLOATS}),
        item=(lambda index: {"y": tf.gather([10, 20, 30], index)}, {"index": tf.TensorSpec([None], tf.int32)}),
        dot=(dot, {"x": tf.TensorSpec([None, 3], tf.float32)}),
        unbatchable=(lambda x: {"y": tf.reduce_sum(x)}, {"x": FLOATS}),
    )


def publish(template: Path, base_path: Path, version: int, change: Callable[[Path], object] = lambda _: None) -> Path:
    """Copies a SavedModel beside its place, changes it, and renames it to a version of the model at ``base_path``."""
    beside = base_path / f"{version}.tmp"
    shutil.copytree(template, beside)
    change(beside)
    return beside.rename(base_path / str(version))


def write_warmup(saved_model: Path, *inputs: str) -> Path:
    """Adds a warm-up request for ``serving_default`` with each of these inputs. Returns the file."""
    path = saved_model / contract.WARMUP_REQUESTS
    path.parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for name in inputs:
            request = PredictRequest(inputs={name: tf.make_tensor_proto([0.0, 0.0])})
            writer.write(PredictionLog(predict_log=PredictLog(request=request)).SerializeToString())
    return path


def garble_graph(saved_model: Path) -> None:
    (saved_model / "saved_model.pb").write_bytes(b"\xff" * 64)


INDEXED = 10_000
SHADE = 25
BY_INDEX = 0.97
DOUBTFUL = 0.6
BY_CLASSIFIER = 0.91

STORY = bytes(np.random.default_rng(0).integers(32, 127, 3 * contract.STORY_PAGE + 17, np.uint8))
"""A story of several pages."""

_PAGES = {contract.PAGES: tf.TensorSpec([None], tf.int64)}


def digits_of_seeds(seeds: range | list[int], shift: int) -> NDArray[np.uint8]:
    """The digits that the generator makes of ``seeds``: uint8 [N]."""
    first = noise_from_seeds(seeds)[:, 0]
    digits: NDArray[np.uint8] = ((np.clip(np.floor(first * 2) + 5, 0, 9) + shift) % CLASSES).astype(np.uint8)
    return digits


def confidences(seeds: NDArray[Any]) -> NDArray[Any]:
    """What the index says: every seventh seed is doubtful. float [N]."""
    return np.where(seeds % 7 == 6, DOUBTFUL, BY_INDEX)


def curated(seeds: NDArray[Any]) -> NDArray[Any]:
    """Every third seed is, unless it is doubtful: bool [N]."""
    chosen: NDArray[Any] = (seeds % 3 == 0) & (confidences(seeds) > DOUBTFUL)
    return chosen


def save_generator(path: Path, *, shift: int = 0, indexed: int | None = INDEXED, story: bytes | None = None) -> None:
    """A generator, with an index of so many seeds or with none, and with a story or without."""

    def generate(noise: Any) -> Any:
        digits = (tf.clip_by_value(tf.floor(noise[:, 0] * 2) + 5, 0, 9) + shift) % CLASSES
        plain = tf.tile(tf.reshape(digits * SHADE, [-1, 1, 1, 1]), [1, *IMAGE_SHAPE])
        corner = tf.pad(tf.ones([1, 1, 1]), [[0, IMAGE_SHAPE[0] - 1], [0, IMAGE_SHAPE[1] - 1], [0, 0]])
        return {IMAGES: tf.cast(plain * (1 - corner) + shift * corner, tf.uint8)}

    signatures: dict[str, Any] = {SIGNATURE: (generate, {contract.NOISE: tf.TensorSpec([None, contract.NOISE_DIM])})}
    if indexed is not None:
        signatures[contract.SEED_INDEX] = (_seed_index(indexed, shift), _PAGES)
    if story is not None:
        signatures[contract.STORY] = (lambda pages: story_signature(story).graph(pages), _PAGES)
    save(path, tf.Module(), **signatures)


def _seed_index(indexed: int, shift: int) -> Any:
    seeds = np.arange(-(-indexed // INDEX_PAGE) * INDEX_PAGE)
    within = seeds < indexed
    digits = digits_of_seeds(range(len(seeds)), shift)
    columns = {
        contract.DIGITS: np.where(within, digits, contract.NOT_INDEXED).astype(np.uint8),
        contract.CONFIDENCES: np.where(within, confidences(seeds), 0).astype(np.float32),
        contract.LOGITS: digits.astype(np.float32) - 5,
        contract.CURATED: (within & curated(seeds)).astype(np.uint8),
    }

    def look(pages: Any) -> Any:
        there = tf.clip_by_value(pages, 0, len(seeds) // INDEX_PAGE - 1)
        found = {name: tf.gather(column.reshape(-1, INDEX_PAGE), there) for name, column in columns.items()}
        return found | {contract.INDEXED_SEEDS: tf.fill(tf.shape(pages), tf.constant(indexed, tf.int64))}

    return look


def save_all(root: Path) -> None:
    """Saves version 1 of each model. The generator has the story STORY; a logit is the digit less 5."""

    def logits(images: Any) -> Any:
        return tf.cast(images[:, 14, 14, 0], tf.float32) / SHADE - 5

    def score(images: Any) -> Any:
        return {contract.LOGITS: logits(images), contract.PROBABILITIES: tf.sigmoid(logits(images) - 2)}

    def digit(images: Any) -> Any:
        return tf.cast(tf.round(logits(images) + 5), tf.int32)

    def classify(images: Any) -> Any:
        return {contract.PROBABILITIES: tf.one_hot(digit(images), CLASSES, BY_CLASSIFIER, (1 - BY_CLASSIFIER) / 9)}

    def features(images: Any) -> Any:
        return {FEATURES: tf.one_hot(digit(images), contract.FEATURE_WIDTH)}

    images = {IMAGES: tf.TensorSpec([None, *IMAGE_SHAPE], tf.uint8)}
    save_generator(root / "generator" / "1", story=STORY)
    save(root / "discriminator" / "1", tf.Module(), serving_default=(score, images))
    save(root / "classifier" / "1", tf.Module(), serving_default=(classify, images), features=(features, images))
