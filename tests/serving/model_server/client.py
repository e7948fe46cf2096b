"""A client of TensorFlow Serving's API, on the official stubs, and the servers that it calls: embedded or not."""

import signal
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format
from numpy.typing import NDArray
from tensorflow_serving.apis import model_service_pb2_grpc, prediction_service_pb2_grpc
from tensorflow_serving.apis.get_model_metadata_pb2 import GetModelMetadataRequest
from tensorflow_serving.apis.get_model_status_pb2 import GetModelStatusRequest
from tensorflow_serving.apis.model_management_pb2 import ReloadConfigRequest
from tensorflow_serving.apis.predict_pb2 import PredictRequest

from serving.tf_serving.client import VersionStatus, version_statuses
from serving.tf_serving.server_config import GRPC_MAX_THREADS
from tests.support.processes import EMBEDDED, PROGRAM, ModelServerProcess, wait_until

SECONDS = 90.0
"""How long anything may take before a test fails."""

# What the suite expects of any server: quick polls and retries, labels before their versions, health, enough threads.
FLAGS = (
    "--port=0",
    "--file_system_poll_wait_seconds=1",
    "--max_num_load_retries=1",
    "--load_retry_interval_micros=1000",
    "--allow_version_labels_for_unavailable_models",
    "--enable_grpc_healthcheck_service",
    "--enable_serialization_as_tensor_content",
    f"--grpc_max_threads={GRPC_MAX_THREADS}",
)
BATCHING_PARAMETERS = """
max_batch_size { value: 4 }
allowed_batch_sizes: [1, 2, 4]
batch_timeout_micros { value: 0 }
max_enqueued_batches { value: 2 }
num_batch_threads { value: 1 }
"""


class Client:
    """The stubs on one channel, with short ways to make requests and read answers."""

    def __init__(self, channel: grpc.Channel) -> None:
        self.channel = channel
        self.prediction: Any = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        self.models: Any = model_service_pb2_grpc.ModelServiceStub(channel)

    def predict(self, model: str, inputs: Mapping[str, Any], **spec: Any) -> Any:
        return self.predicting(model, inputs, **spec).result()

    def predicting(
        self, model: str, inputs: Mapping[str, Any], output_filter: tuple[str, ...] = (), **spec: Any
    ) -> Any:
        """Calls Predict with arrays or TensorProtos. Returns the future of its answer."""
        protos = {name: tf.make_tensor_proto(x) if isinstance(x, np.ndarray) else x for name, x in inputs.items()}
        request = PredictRequest(model_spec=model_spec(model, **spec), inputs=protos, output_filter=output_filter)
        return self.prediction.Predict.future(request, timeout=SECONDS)

    def half_plus(self, model: str, **spec: Any) -> tuple[float, int]:
        """Returns a half-plus model's result for 1, and the version that gave it."""
        answer = self.predict(model, {"x": np.ones(1, np.float32)}, **spec)
        return float(output(answer, "y")[0]), answer.model_spec.version.value

    def statuses(self, model: str, **spec: Any) -> list[VersionStatus]:
        request = GetModelStatusRequest(model_spec=model_spec(model, **spec))
        return version_statuses(self.models.GetModelStatus(request, timeout=SECONDS))

    def states(self, model: str) -> dict[int, str]:
        """Returns the states by version; empty when nothing is known about the model."""
        try:
            return {status.version: status.state for status in self.statuses(model)}
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.NOT_FOUND:
                raise
            return {}

    def wait_for_states(self, model: str, expected: Mapping[int, str]) -> None:
        wait_until(lambda: self.states(model) == expected, lambda: f"{self.states(model)} is not {expected}")

    def metadata(self, model: str, *fields: str, **spec: Any) -> Any:
        request = GetModelMetadataRequest(model_spec=model_spec(model, **spec), metadata_field=fields)
        return self.prediction.GetModelMetadata(request, timeout=SECONDS)

    def reload(self, config: str) -> Any:
        """Calls HandleReloadConfigRequest with a ModelServerConfig in text format. Returns the future of its answer."""
        request = ReloadConfigRequest()
        text_format.Parse(config, request.config)
        return self.models.HandleReloadConfigRequest.future(request, timeout=SECONDS)


def model_spec(model: str, version: int | None = None, label: str | None = None, signature: str = "") -> dict[str, Any]:
    number = None if version is None else {"value": version}
    return {"name": model, "version": number, "version_label": label, "signature_name": signature}


def output(answer: Any, name: str) -> NDArray[Any]:
    array: NDArray[Any] = tf.make_ndarray(answer.outputs[name])
    return array


@contextmanager
def refused(expected: str, *words: str) -> Iterator[None]:
    """Passes when the block's call fails with the status of this name, and a message with all of these words."""
    with pytest.raises(grpc.RpcError) as caught:
        yield
    assert caught.value.code().name == expected, caught.value
    message = caught.value.details() or ""
    assert [word for word in words if word not in message] == [], message


def config(base_paths: Mapping[str, Path], extra: Mapping[str, str] | None = None) -> str:
    """Returns a models.config for models by name, each with more fields from ``extra``, if it is there."""
    models = "".join(
        f'config {{ name: "{name}" base_path: "{path}" model_platform: "tensorflow" {(extra or {}).get(name, "")} }}\n'
        for name, path in base_paths.items()
    )
    return f"model_config_list {{\n{models}}}\n"


@contextmanager
def server_process(models_config: str, *flags: str, batching: bool = False) -> Iterator[ModelServerProcess]:
    """Runs a server in the block, which may use it before it listens. Shows its log when a test fails."""
    # A short path: a socket's may not be longer than about 100 characters.
    with tempfile.TemporaryDirectory(prefix="ms-") as directory:
        Path(directory, "models.config").write_text(models_config)
        Path(directory, "batching.config").write_text(BATCHING_PARAMETERS)
        files = (f"--model_config_file={directory}/models.config", f"--grpc_socket_path={directory}/grpc.sock")
        if batching:
            flags += ("--enable_batching", f"--batching_parameters_file={directory}/batching.config")
        elif PROGRAM == EMBEDDED:
            flags += ("--no-batching",)
        server = ModelServerProcess(PROGRAM, [*FLAGS, *files, *flags], f"unix:{directory}/grpc.sock")
        try:
            yield server
        finally:
            server.stop(signal.SIGKILL)
            print(server.log)


@contextmanager
def connected(target: str | ModelServerProcess) -> Iterator[Client]:
    """Gives a client of the server at an address, or of a process once it listens."""
    if isinstance(target, ModelServerProcess):
        target.wait_until_ready()
        target = target.target
    with grpc.insecure_channel(target, options=[("grpc.max_receive_message_length", -1)]) as channel:
        yield Client(channel)
