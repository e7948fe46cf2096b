"""ModelService.GetModelStatus, PredictionService.GetModelMetadata, and gRPC health."""

import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tensorflow.core.framework import types_pb2
from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2

from tests.serving.model_server.client import SECONDS, Client, Status, refused


def test_versions_are_listed_newest_first_or_the_one_that_is_named_by_number(client: Client) -> None:
    assert client.statuses("half") == [Status(2, "AVAILABLE", 0, ""), Status(1, "AVAILABLE", 0, "")]
    assert client.statuses("half", 1) == [Status(1, "AVAILABLE", 0, "")]
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name, request.model_spec.version_label = "half", "stable"
    assert len(client.models.GetModelStatus(request, timeout=SECONDS).model_version_status) == 2


@pytest.mark.parametrize(("name", "version", "word"), [("absent", None, "absent"), ("", None, ""), ("half", 99, "99")])
def test_the_status_of_what_is_unknown_is_not_found(client: Client, name: str, version: int | None, word: str) -> None:
    with refused("NOT_FOUND", word):
        client.statuses(name, version)


def test_metadata_describes_the_signatures_of_the_newest_version_or_the_one_that_is_named(client: Client) -> None:
    answer = client.metadata("half", "signature_def")
    assert (answer.model_spec.name, answer.model_spec.version.value) == ("half", 2)
    signatures = get_model_metadata_pb2.SignatureDefMap()
    assert answer.metadata["signature_def"].Unpack(signatures)
    both = signatures.signature_def["both"]
    assert both.method_name == "tensorflow/serving/predict"
    assert (list(both.inputs), sorted(both.outputs)) == (["x"], ["y", "z"])
    assert both.inputs["x"].dtype == types_pb2.DT_FLOAT
    assert {"serving_default", "both", "sum"} <= set(signatures.signature_def)
    assert client.metadata("half", "signature_def", version=1).model_spec.version.value == 1
    assert client.metadata("half", "signature_def", label="stable").model_spec.version.value == 1


@pytest.mark.parametrize("fields", [(), ("shoe_size",), ("signature_def", "shoe_size")])
def test_other_metadata_is_refused(client: Client, fields: tuple[str, ...]) -> None:
    with refused("INVALID_ARGUMENT"):
        client.metadata("half", *fields)


def test_health_is_serving_and_can_be_watched(client: Client) -> None:
    stub = health_pb2_grpc.HealthStub(client.channel)
    request = health_pb2.HealthCheckRequest()
    assert stub.Check(request, timeout=SECONDS).status == health_pb2.HealthCheckResponse.SERVING
    watch = stub.Watch(request, timeout=SECONDS)
    assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
    watch.cancel()
    with refused("NOT_FOUND"):
        stub.Check(health_pb2.HealthCheckRequest(service="x"), timeout=SECONDS)
