"""From trained networks to model versions that a model server can load: saved, checked, then published by a rename."""

import os
import shutil
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any, Final

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from serving import apis, server_config
from serving.contract import (
    BATCH_SIZES,
    CLASSIFIER,
    FEATURES,
    GENERATOR,
    IMAGE_SHAPE,
    IMAGES,
    LOGITS,
    MODELS,
    PIXEL_SCALE,
    PROBABILITIES,
    SIGNATURE,
    WARMUP_REQUESTS,
)
from serving.model_card import write_card
from serving.noise import noise_from_seeds
from serving.storage import find_versions
from serving.tensors import to_proto
from training.classifier import features_and_probabilities
from training.inference import inference_graphs

CHECKED_SIZES: Final = (1, 2, 3, 7, 64, 256)
PIXEL_TOLERANCE: Final = 0.5 + 0.01
"""How far a pixel may lie from the network's unrounded value: its own rounding, and float32's noise at 255."""
LOGIT_TOLERANCE: Final = 1e-3
FEATURE_TOLERANCE: Final = 1e-3
"""For the classifier's features and probabilities alike."""


class ExportError(RuntimeError):
    """What was saved doesn't compute what the network computes, so nothing was published."""


def export(
    networks: Mapping[str, Any],
    base: Path,
    facts: Mapping[str, Any],
    mount_point: PurePosixPath | Path = server_config.MOUNT_POINT,
) -> int:
    """Publishes one new version of each network, all under the same number.

    Each version directory is written under a name that no model server looks at, loaded back, compared with the
    network on several batch sizes, and renamed into place once all of them have passed. TensorFlow Serving's
    configuration files are written beside the models.

    Args:
        networks: model name -> trained Keras network in float32.
        base: the model base directories' parent.
        facts: what the model cards tell about the training.
        mount_point: ``base`` as the model server will see it, for models.config.

    Returns:
        The version.

    Raises:
        ExportError: a saved graph differs from its network by more than rounding.
    """
    version = 1 + max((number for name in networks for number in versions(base / name)), default=0)
    staged: list[tuple[Path, Path]] = []
    try:
        for name, network in networks.items():
            staging = base / name / f".{version}.{os.getpid()}.partial"
            staged.append((staging, base / name / str(version)))
            _save(name, network, staging)
            differences = _check(name, network, staging)
            write_card(
                staging,
                {
                    "model": name,
                    "version": version,
                    "created": datetime.now(UTC).isoformat(timespec="seconds"),
                    **facts,
                    "export": {"tensorflow": tf.__version__, "greatest_difference_from_network": differences},
                },
            )
        for staging, final in staged:
            staging.rename(final)
    finally:
        for staging, _ in staged:
            shutil.rmtree(staging, ignore_errors=True)
    hosted = [name for name in MODELS if versions(base / name)]
    server_config.write_configs(base, hosted, mount_point, os.cpu_count() or 1)
    return version


def versions(model_base: Path) -> list[int]:
    """The version numbers of a model base directory, ascending."""
    if not model_base.is_dir():
        return []
    return sorted(find_versions(model_base))


def _save(name: str, network: Any, directory: Path) -> None:
    module = tf.Module()
    module.graphs = inference_graphs(name, network)
    tf.saved_model.save(module, str(directory), signatures=dict(module.graphs))
    records = directory / WARMUP_REQUESTS
    records.parent.mkdir(parents=True)
    with tf.io.TFRecordWriter(str(records)) as writer:
        for size in BATCH_SIZES:
            log = apis.PredictionLog()
            request = log.predict_log.request
            request.model_spec.name = name
            request.model_spec.signature_name = SIGNATURE
            request.inputs[MODELS[name].input.name].CopyFrom(to_proto(_example_inputs(name, size)))
            writer.write(log.SerializeToString())


def _example_inputs(name: str, rows: int) -> NDArray[Any]:
    if name == GENERATOR:
        return noise_from_seeds(range(rows))
    return np.random.default_rng(rows).integers(0, 256, (rows, *IMAGE_SHAPE), np.uint8)


def _check(name: str, network: Any, directory: Path) -> float:
    """Loads the saved model and compares it with the network.

    The greatest difference in pixel levels, in logits, or in features and probabilities, by the model.
    """
    saved = tf.saved_model.load(str(directory))
    served = saved.signatures[SIGNATURE]
    greatest = 0.0
    for size in CHECKED_SIZES:
        inputs = _example_inputs(name, size)
        outputs = {key: value.numpy() for key, value in served(tf.constant(inputs)).items()}
        if name == GENERATOR:
            expected = np.asarray(network(inputs, training=False), np.float64) * PIXEL_SCALE + PIXEL_SCALE
            difference, tolerance = np.abs(outputs[IMAGES] - expected).max(), PIXEL_TOLERANCE
        elif name == CLASSIFIER:
            features, probabilities = features_and_probabilities(network, inputs)
            found = saved.signatures[FEATURES](tf.constant(inputs))[FEATURES].numpy()
            difference = max(np.abs(outputs[PROBABILITIES] - probabilities).max(), np.abs(found - features).max())
            tolerance = FEATURE_TOLERANCE
        else:
            expected = np.asarray(network(inputs / np.float32(PIXEL_SCALE) - 1, training=False))[:, 0]
            difference, tolerance = np.abs(outputs[LOGITS] - expected).max(), LOGIT_TOLERANCE
        if not difference <= tolerance:  # NaN must fail too.
            raise ExportError(
                f"{name}: at batch size {size} the saved graph differs from the network by {difference:.3g}, more "
                f"than {tolerance:.3g}; nothing was published"
            )
        greatest = max(greatest, float(difference))
    return greatest
