"""SavedModels that can be checked in one's head, made with TensorFlow, and ways to break them."""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorflow_serving.apis.predict_pb2 import PredictRequest
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog, PredictLog

from serving.contract import WARMUP_REQUESTS

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
    """Signatures whose answers tell how they were run.

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
    path = saved_model / WARMUP_REQUESTS
    path.parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for name in inputs:
            request = PredictRequest(inputs={name: tf.make_tensor_proto([0.0, 0.0])})
            writer.write(PredictionLog(predict_log=PredictLog(request=request)).SerializeToString())
    return path


def garble_graph(saved_model: Path) -> None:
    (saved_model / "saved_model.pb").write_bytes(b"\xff" * 64)
