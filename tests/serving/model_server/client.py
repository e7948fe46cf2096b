"""A client of TensorFlow Serving's API, on the official stubs."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self

import grpc
import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format
from numpy.typing import NDArray
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_management_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from tests.support.waiting import wait_until

SECONDS = 90.0
"""How long anything may take before a test fails."""


@dataclass(frozen=True)
class Status:
    version: int
    state: str
    code: int
    message: str


class Client:
    """The stubs on one channel, with short ways to make requests and read answers."""

    def __init__(self, target: str) -> None:
        self.channel = grpc.insecure_channel(
            target,
            options=[
                ("grpc.initial_reconnect_backoff_ms", 50),
                ("grpc.max_reconnect_backoff_ms", 200),
                ("grpc.max_receive_message_length", -1),
            ],
        )
        self.prediction: Any = prediction_service_pb2_grpc.PredictionServiceStub(self.channel)
        self.models: Any = model_service_pb2_grpc.ModelServiceStub(self.channel)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.channel.close()

    def predict(self, model: str, inputs: Mapping[str, Any], **spec: Any) -> Any:
        return self.prediction.Predict(predict_request(model, inputs, **spec), timeout=SECONDS)

    def half_plus(self, model: str, x: float = 1.0, **spec: Any) -> tuple[float, int]:
        """Asks a half-plus model about one number; returns the result and the version that gave it."""
        answer = self.predict(model, {"x": np.array([x], np.float32)}, **spec)
        return float(output(answer, "y")[0]), answer.model_spec.version.value

    def statuses(self, model: str, version: int | None = None) -> list[Status]:
        request = get_model_status_pb2.GetModelStatusRequest()
        request.model_spec.name = model
        if version is not None:
            request.model_spec.version.value = version
        answer = self.models.GetModelStatus(request, timeout=SECONDS)
        state = get_model_status_pb2.ModelVersionStatus.State
        return [
            Status(each.version, state.Name(each.state), each.status.error_code, each.status.error_message)
            for each in answer.model_version_status
        ]

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
        request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=fields)
        _fill_spec(request.model_spec, model, **spec)
        return self.prediction.GetModelMetadata(request, timeout=SECONDS)

    def reload(self, config: str) -> Any:
        """Calls HandleReloadConfigRequest with a ModelServerConfig in text format."""
        return self.begin_reload(config).result()

    def begin_reload(self, config: str) -> Any:
        """Begins such a call, and returns the future of its answer."""
        request = model_management_pb2.ReloadConfigRequest()
        text_format.Parse(config, request.config)
        return self.models.HandleReloadConfigRequest.future(request, timeout=SECONDS)


def predict_request(
    model: str, inputs: Mapping[str, Any], *, output_filter: tuple[str, ...] = (), **spec: Any
) -> predict_pb2.PredictRequest:
    """Returns a PredictRequest; inputs are arrays or TensorProtos."""
    request = predict_pb2.PredictRequest(output_filter=output_filter)
    _fill_spec(request.model_spec, model, **spec)
    for name, value in inputs.items():
        proto = tf.make_tensor_proto(value) if isinstance(value, np.ndarray) else value
        request.inputs[name].CopyFrom(proto)
    return request


def _fill_spec(
    target: Any, model: str, version: int | None = None, label: str | None = None, signature: str = ""
) -> None:
    target.name = model
    target.signature_name = signature
    if version is not None:
        target.version.value = version
    if label is not None:
        target.version_label = label


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
