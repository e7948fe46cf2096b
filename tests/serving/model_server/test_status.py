"""ModelService.GetModelStatus, PredictionService.GetModelMetadata, and gRPC health."""

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tensorflow.core.framework import types_pb2
from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2

from tests.serving.model_server.client import SECONDS, Client, Status, refused

NOT_FOUND = grpc.StatusCode.NOT_FOUND
INVALID_ARGUMENT = grpc.StatusCode.INVALID_ARGUMENT


def test_versions_are_listed_newest_first(client: Client) -> None:
    assert client.statuses("half") == [Status(2, "AVAILABLE", 0, ""), Status(1, "AVAILABLE", 0, "")]


def test_one_version_is_listed_when_it_is_named(client: Client) -> None:
    assert client.statuses("half", 1) == [Status(1, "AVAILABLE", 0, "")]


def test_a_label_does_not_filter(client: Client) -> None:
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name, request.model_spec.version_label = "half", "stable"
    assert len(client.models.GetModelStatus(request, timeout=SECONDS).model_version_status) == 2


def test_the_status_of_what_is_unknown_is_not_found(client: Client) -> None:
    with refused(NOT_FOUND, "nobody"):
        client.statuses("nobody")
    with refused(NOT_FOUND):
        client.statuses("")
    with refused(NOT_FOUND, "99"):
        client.statuses("half", 99)


def test_metadata_describes_the_signatures(client: Client) -> None:
    answer = client.metadata("half", "signature_def", version=1)
    assert (answer.model_spec.name, answer.model_spec.version.value) == ("half", 1)
    signatures = get_model_metadata_pb2.SignatureDefMap()
    assert answer.metadata["signature_def"].Unpack(signatures)
    both = signatures.signature_def["both"]
    assert both.method_name == "tensorflow/serving/predict"
    assert list(both.inputs) == ["x"]
    assert sorted(both.outputs) == ["y", "z"]
    assert both.inputs["x"].dtype == types_pb2.DT_FLOAT
    assert {"serving_default", "both", "sum"} <= set(signatures.signature_def)


def test_metadata_describes_the_newest_version_or_the_label(client: Client) -> None:
    assert client.metadata("half", "signature_def").model_spec.version.value == 2
    assert client.metadata("half", "signature_def", label="stable").model_spec.version.value == 1


@pytest.mark.parametrize("fields", [(), ("shoe_size",), ("signature_def", "shoe_size")])
def test_metadata_other_than_the_signatures_is_invalid(client: Client, fields: tuple[str, ...]) -> None:
    with refused(INVALID_ARGUMENT):
        client.metadata("half", *fields)


def test_the_metadata_of_what_is_unknown_is_refused(client: Client) -> None:
    with refused(NOT_FOUND, "nobody"):
        client.metadata("nobody", "signature_def")
    with refused(NOT_FOUND, "99"):
        client.metadata("half", "signature_def", version=99)
    with refused(INVALID_ARGUMENT, "beta"):
        client.metadata("half", "signature_def", label="beta")


def test_health_is_serving(client: Client) -> None:
    stub = health_pb2_grpc.HealthStub(client.channel)
    answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=SECONDS)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_health_can_be_watched(client: Client) -> None:
    watch = health_pb2_grpc.HealthStub(client.channel).Watch(health_pb2.HealthCheckRequest(), timeout=SECONDS)
    assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
    watch.cancel()


def test_the_health_of_an_unknown_service_is_not_found(client: Client) -> None:
    with refused(NOT_FOUND):
        health_pb2_grpc.HealthStub(client.channel).Check(health_pb2.HealthCheckRequest(service="x"), timeout=SECONDS)
