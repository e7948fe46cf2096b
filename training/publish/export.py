"""From trained networks to model versions that a model server can load: saved, compared, then published by a rename."""

import hashlib
import os
import shutil
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from serving import apis, contract
from serving.contract import CLASSIFIER, DISCRIMINATOR, GENERATOR, MODELS, SEED_INDEX, SIGNATURE, STORY
from serving.errors import UserError
from serving.storage import newest_version
from serving.tf_serving import server_config
from serving.tf_serving.tensors import to_proto
from serving.versions.model_card import CardError, find_card, read_card, verify, write_card
from training.devices import prepare_tensorflow
from training.evaluation.calibration import Calibration
from training.publish import seed_index
from training.publish.seed_index import SEEDS
from training.publish.signatures import Signature, example_inputs, index_signature, signatures_of, story_signature


def export(
    networks: Mapping[str, Any],
    base: Path,
    facts: Mapping[str, Any],
    mount_point: PurePosixPath | Path = server_config.MOUNT_POINT,
    *,
    details: Mapping[str, Mapping[str, Any]] | None = None,
    calibration: Calibration | None = None,
    classifier: Path | None = None,
    index_seeds: int = SEEDS,
    story: bytes | None = None,
) -> int:
    """Publishes one new version of each network, all under the same number, which it returns.

    Each version directory is written under a name that no model server looks at, loaded back, compared with the
    network on several batch sizes, and renamed into place once all of them have passed.

    Args:
        networks: model name -> trained Keras network in float32.
        base: the model base directories' parent, where TensorFlow Serving's configuration files are written too.
        facts: what all model cards say about the training.
        mount_point: ``base`` as the model server will see it, for models.config.
        details: model name -> what that model's card says besides.
        classifier: a version directory; it is published too, with an index of the seeds that it labels.
        story: how the generator learned, to be served with it (:func:`training.report.story.encode`).

    Raises UserError if a saved graph differs from its network by more than rounding, or if there is no ``classifier``.
    """
    prepare_tensorflow()  # Under TF32, every comparison would fail.
    version = max(_next_version(base / name) for name in networks)
    staged: dict[Path, Path] = {}
    cards = {name: {**facts, **(details or {}).get(name, {})} for name in networks}
    signatures = {
        name: signatures_of(name, network, calibration or Calibration()) for name, network in networks.items()
    }
    try:
        if classifier:
            labelling = _stage_classifier(classifier, base / CLASSIFIER, staged)
            columns, index_facts = _index(signatures, classifier, index_seeds)
            signatures[GENERATOR][SEED_INDEX] = index_signature(columns)
            cards[GENERATOR][SEED_INDEX] = {**index_facts, CLASSIFIER: labelling}
        if story:
            signatures[GENERATOR][STORY] = story_signature(story)
            cards[GENERATOR][STORY] = {"bytes": len(story), "sha256": hashlib.sha256(story).hexdigest()}
        # The generator is renamed last, so that a reader of its seed index finds the models that the index speaks of.
        for name in sorted(networks, key=lambda name: name == GENERATOR):
            staging = _stage(base / name, version, staged)
            module = tf.Module()
            # The generator's weights are constants of its graph.
            module.weights = [weight.value for weight in networks[name].weights if name != GENERATOR]
            graphs = {signature: each.graph for signature, each in signatures[name].items()}
            tf.saved_model.save(module, str(staging), signatures=graphs)
            _write_warm_up_requests(name, staging)
            card = {
                "model": name,
                "version": version,
                "created": datetime.now(UTC).isoformat(timespec="seconds"),
                **cards[name],
                "export": {
                    "tensorflow": tf.__version__,
                    "greatest_difference_from_network": _compare(name, signatures[name], staging),
                },
            }
            write_card(staging, card)
        for staging, final in staged.items():
            staging.rename(final)
    finally:
        for staging in staged:
            shutil.rmtree(staging, ignore_errors=True)
    hosted = [name for name in MODELS if newest_version(base / name)]
    server_config.write_configs(base, hosted, mount_point, os.cpu_count() or 1)
    return version


def _next_version(model_base: Path) -> int:
    newest = newest_version(model_base)
    return int(newest.name) + 1 if newest else 1


def _stage(model_base: Path, version: int, staged: dict[Path, Path]) -> Path:
    """The directory to write a version in; it is added to those that are renamed at the end."""
    staging = model_base / f".{version}.{os.getpid()}.partial"
    staged[staging] = model_base / str(version)
    return staging


def _stage_classifier(source: Path, target: Path, staged: dict[Path, Path]) -> int:
    """Stages a copy of a classifier, if the newest one that is published has other files. Returns its version."""
    try:
        verify(source)
        card = read_card(source)
    except CardError as error:
        raise UserError(f"the classifier can't be published: {error}") from error
    version = _next_version(target)
    if find_card(newest_version(target)).get("files") == card["files"]:
        return version - 1
    staging = _stage(target, version, staged)
    for name in card["files"]:
        (staging / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, staging / name)
    del card["files"]
    write_card(staging, {**card, "version": version})
    return version


def _index(
    signatures: Mapping[str, Mapping[str, Signature]], classifier: Path, seeds: int
) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Labels the digits of the first seeds by the graphs that are published."""
    saved = tf.saved_model.load(str(classifier))
    generate, score = (signatures[name][SIGNATURE].graph for name in (GENERATOR, DISCRIMINATOR))
    return seed_index.build(
        lambda noise: np.asarray(generate(tf.constant(noise))[contract.IMAGES]),
        lambda images: np.asarray(saved.signatures[SIGNATURE](tf.constant(images))[contract.PROBABILITIES]),
        lambda images: np.asarray(score(tf.constant(images))[contract.LOGITS]),
        seeds,
    )


def _compare(name: str, signatures: Mapping[str, Signature], directory: Path) -> float:
    """Loads a saved model, compares each signature with what it has to compute, and returns the greatest difference."""
    saved = tf.saved_model.load(str(directory))
    greatest = 0.0
    for signature, reference in signatures.items():
        for inputs in reference.inputs:
            expected = reference.expected(inputs)
            for output, found in saved.signatures[signature](tf.constant(inputs)).items():
                difference = float(np.abs(np.subtract(found.numpy(), expected[output], dtype=np.float64)).max())
                if not difference <= reference.tolerance:  # NaN must fail too.
                    raise UserError(
                        f"{name}: at batch size {len(inputs)}, {output} of the saved graph ({signature}) differs from "
                        f"the network by {difference:.3g}, more than {reference.tolerance:.3g}; nothing was published"
                    )
                greatest = max(greatest, difference)
    return greatest


def _write_warm_up_requests(name: str, directory: Path) -> None:
    records = directory / contract.WARMUP_REQUESTS
    records.parent.mkdir(parents=True)
    model = {"name": name, "signature_name": SIGNATURE}
    with tf.io.TFRecordWriter(str(records)) as writer:
        for size in contract.BATCH_SIZES:
            inputs = {MODELS[name].input.name: to_proto(example_inputs(name, size))}
            log = apis.PredictionLog(predict_log={"request": {"model_spec": model, "inputs": inputs}})
            writer.write(log.SerializeToString())
