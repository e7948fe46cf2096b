"""TensorFlow Serving's configuration files, in protobuf's text format, for the models of a base directory.

``models.config`` for the flag ``--model_config_file``, ``batching.config`` for ``--batching_parameters_file`` and
``monitoring.config`` for ``--monitoring_config_file``.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Final

from google.protobuf import text_format

from serving import apis
from serving.contract import BATCH_SIZES
from serving.files import write_atomically

MODELS_CONFIG: Final = "models.config"
BATCHING_CONFIG: Final = "batching.config"
MONITORING_CONFIG: Final = "monitoring.config"
MOUNT_POINT: Final = PurePosixPath("/models")
"""Where TensorFlow Serving's own images expect the models."""
GRPC_MAX_THREADS: Final = 512
"""Calls that a model server handles at once, for ``--grpc_max_threads``; more are RESOURCE_EXHAUSTED.

A waiting call holds a thread. A gateway has at most 72 calls under way, and a few for its probes: one for each of the
64 small and 8 large requests that it admits (``DIGITGAN_MAX_IMAGES_IN_FLIGHT`` of 512). So this is enough for seven
gateways. TensorFlow Serving's default is four for each CPU.
"""

_MONITORING: Final = """prometheus_config {
  enable: true
  path: "/monitoring/prometheus/metrics"
}
"""
"""Prometheus metrics on the REST port, at TensorFlow Serving's customary path."""


def models_config(
    names: Iterable[str],
    base: PurePosixPath | Path,
    labels: Mapping[str, Mapping[str, int]] = MappingProxyType({}),
) -> apis.ModelServerConfig:
    """Returns one entry for each model at ``base/name``. ``base`` is absolute, as the model server sees it.

    ``labels`` has the version of each label, by model. Only these versions are loaded. A model without labels is on
    TensorFlow Serving's default policy: the latest version.
    """
    config = apis.ModelServerConfig()
    for name in names:
        one = config.model_config_list.config.add(
            name=name, base_path=str(base / name), model_platform="tensorflow", version_labels=labels.get(name, {})
        )
        if versions := {*one.version_labels.values()}:
            one.model_version_policy.specific.versions[:] = sorted(versions)
    return config


def write_models_config(directory: Path, config: apis.ModelServerConfig) -> None:
    """Replaces the ``models.config`` in a directory."""
    write_atomically(directory / MODELS_CONFIG, text_format.MessageToString(config))


def write_configs(directory: Path, names: Iterable[str], base: PurePosixPath | Path, threads: int) -> None:
    """Writes the three files into ``directory``, for the models at ``base/name``, as the model server sees them.

    An existing ``models.config`` keeps its entries for these models, with the versions and labels that
    ``digitgan models`` has given them. ``threads`` is the number of batches that run at once.
    """
    config = models_config(names, base)
    try:
        old = text_format.Parse((directory / MODELS_CONFIG).read_text("utf-8"), apis.ModelServerConfig())
    except (OSError, ValueError):
        old = apis.ModelServerConfig()
    labelled = {(one.name, one.base_path): one for one in old.model_config_list.config if one.version_labels}
    for one in config.model_config_list.config:
        one.CopyFrom(labelled.get((one.name, one.base_path), one))
    write_models_config(directory, config)
    write_atomically(directory / BATCHING_CONFIG, _batching_config(threads))
    write_atomically(directory / MONITORING_CONFIG, _MONITORING)


def _batching_config(threads: int) -> str:
    """Returns batching without a wait. Batches are padded to a size that warm-up has covered."""
    lines = [
        f"max_batch_size {{ value: {BATCH_SIZES[-1]} }}",
        "batch_timeout_micros { value: 0 }",
        "max_enqueued_batches { value: 64 }",
        f"num_batch_threads {{ value: {threads} }}",
        *(f"allowed_batch_sizes: {size}" for size in BATCH_SIZES),
    ]
    return "\n".join(lines) + "\n"
