"""The calls for outputs, states, metadata and health. With batching, a request has 4 rows at most."""

from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tensorflow.core.framework import tensor_pb2, types_pb2
from tensorflow_serving.apis.get_model_metadata_pb2 import SignatureDefMap

from serving.contract import GENERATOR, NOISE
from serving.noise import noise_from_seeds
from serving.tf_serving.client import VersionStatus
from serving.tf_serving.server_config import GRPC_MAX_THREADS
from tests.serving.model_server.client import SECONDS, Client, config, connected, output, refused, server_process
from tests.support import saved_models
from tests.support.processes import EMBEDDED, PROGRAM
from tests.support.saved_models import DTYPES

X = np.array([0, 1, 2.5], np.float32)
UNREADABLE = "tensor parsing error: x"


def tensor(shape: tuple[int, ...], **fields: Any) -> Any:
    dimensions = {"dim": [{"size": size} for size in shape]}
    return tensor_pb2.TensorProto(**{"dtype": 1, "tensor_shape": dimensions, **fields})


@pytest.mark.parametrize(
    ("spec", "y", "version"),
    [
        ({}, 5, 2),
        ({"version": 1}, 4, 1),
        ({"version": 2}, 5, 2),
        ({"label": "stable", "signature": "both"}, 4, 1),
        ({"label": "canary"}, 5, 2),
    ],
)
def test_a_version_or_a_label_chooses_what_answers(
    client: Client, spec: dict[str, Any], y: float, version: int
) -> None:
    answer = client.predict("half", {"x": np.array([4], np.float32)}, **spec)
    assert output(answer, "y").tolist() == [y]
    used = answer.model_spec
    signature = spec.get("signature", "serving_default")
    assert (used.name, used.version.value, used.signature_name) == ("half", version, signature)


@pytest.mark.parametrize("server", ["client", "batching_client"])
def test_an_output_filter_chooses_outputs(request: pytest.FixtureRequest, server: str) -> None:
    client: Client = request.getfixturevalue(server)
    for names in (("z",), ("z", "y")):
        answer = client.predict("half", {"x": X}, signature="both", output_filter=names)
        assert set(answer.outputs) == set(names)
        np.testing.assert_array_equal(output(answer, "z"), X * 2)
    np.testing.assert_array_equal(output(answer, "y"), X / 2 + 3)


@pytest.mark.parametrize("dtype", DTYPES)
def test_values_of_every_dtype_come_back_as_they_were(client: Client, dtype: str) -> None:
    values = np.array([0, 1]).astype(dtype)
    answer = client.predict("echo", {"x": values}, signature=dtype)
    np.testing.assert_array_equal(output(answer, "y"), values)
    assert output(answer, "y").dtype == values.dtype


def test_strings_come_back_or_the_embedded_server_refuses_the_version(tmp_path: Path) -> None:
    """As a list: TensorFlow cannot read the strings that TensorFlow Serving packs into ``tensor_content``."""
    saved_models.save_echo(tmp_path / "text" / "1", "string")
    models_config = config({"text": tmp_path / "text"})
    flags = [] if PROGRAM == EMBEDDED else ["--enable_serialization_as_tensor_content=false"]
    with server_process(models_config, *flags) as server:
        if PROGRAM == EMBEDDED:
            assert server.wait() == 1
            assert "UNIMPLEMENTED" in server.log
            assert "Serve this model with TensorFlow Serving" in server.log
            return
        with connected(server) as client:
            values = np.array([b"", b"\xff\x00"], object)
            answer = client.predict("text", {"x": values}, signature="string")
            np.testing.assert_array_equal(output(answer, "y"), values)


def test_numbers_are_answered_as_raw_bytes_and_no_rows_with_no_rows(client: Client) -> None:
    assert client.predict("half", {"x": X}).outputs["y"].tensor_content == (X / 2 + 3).tobytes()
    assert output(client.predict("half", {"x": X[:0]}), "y").shape == (0,)


def test_only_the_embedded_server_refuses_shapes_and_takes_values(client: Client) -> None:
    """The signature says [N], and the operation takes 0 to 2."""
    shape, value = ({"index": np.array(index, np.int32)} for index in ([[0, 1], [2, 0]], [0, 7]))
    if PROGRAM == EMBEDDED:
        with refused("INVALID_ARGUMENT", "[-1]", "[2, 2]"):
            client.predict("witness", shape, signature="item")
        assert output(client.predict("witness", value, signature="item"), "y").tolist() == [10, 0]
        return
    assert output(client.predict("witness", shape, signature="item"), "y").tolist() == [[10, 20], [30, 10]]
    with refused("INVALID_ARGUMENT", "7"):
        client.predict("witness", value, signature="item")


NO_BOOL = tensor((1,), dtype=10, tensor_content=b"\2")
REFUSED: dict[str, tuple[str, dict[str, Any], dict[str, Any], str, str]] = {
    "unknown model": ("absent", {"x": X}, {}, "NOT_FOUND", "Servable not found for request: Latest(absent)"),
    "unknown model's version": ("absent", {"x": X}, {"version": 1}, "NOT_FOUND", "absent"),
    "unknown version": ("half", {"x": X}, {"version": 99}, "NOT_FOUND", "99"),
    "unknown label": ("half", {"x": X}, {"label": "beta"}, "INVALID_ARGUMENT", "servable version label: beta"),
    "no model name": ("", {"x": X}, {}, "INVALID_ARGUMENT", ""),
    "unknown signature": ("half", {"x": X}, {"signature": "upside_down"}, "FAILED_PRECONDITION", "upside_down"),
    "no input": ("half", {}, {}, "INVALID_ARGUMENT", "x"),
    "extra input": ("half", {"x": X, "extra": X}, {}, "INVALID_ARGUMENT", "extra"),
    "misnamed input": ("half", {"wrong": X}, {}, "INVALID_ARGUMENT", "wrong"),
    "one input of two": ("half", {"a": X}, {"signature": "sum"}, "INVALID_ARGUMENT", "Missing but required: {b}"),
    "integers": ("half", {"x": np.array([1], np.int32)}, {}, "INVALID_ARGUMENT", "to be float but int32 is provided"),
    "strings": ("half", {"x": np.array([b"1"], object)}, {}, "INVALID_ARGUMENT", "to be float"),
    "wrong shape": ("witness", {"x": np.ones((2, 4), np.float32)}, {"signature": "dot"}, "INVALID_ARGUMENT", ""),
    "content too short": ("half", {"x": tensor((2,), tensor_content=b"1234567")}, {}, "INVALID_ARGUMENT", UNREADABLE),
    "content too long": ("half", {"x": tensor((1,), tensor_content=b"12345678")}, {}, "INVALID_ARGUMENT", UNREADABLE),
    "dimension -1": ("half", {"x": tensor((-1,), float_val=[1])}, {}, "INVALID_ARGUMENT", UNREADABLE),
    "an empty tensor": ("half", {"x": tensor_pb2.TensorProto()}, {}, "INVALID_ARGUMENT", UNREADABLE),
    "a huge shape": ("half", {"x": tensor((2**40, 2**40), float_val=[1])}, {}, "INVALID_ARGUMENT", UNREADABLE),
    "no bool": ("echo", {"x": NO_BOOL}, {"signature": "bool"}, "INVALID_ARGUMENT", UNREADABLE),
    "unknown output": ("half", {"x": X}, {"output_filter": ("sideways",)}, "INVALID_ARGUMENT", "sideways"),
    "output twice": ("half", {"x": X}, {"output_filter": ("y", "y")}, "INVALID_ARGUMENT", "duplicate"),
}


@pytest.mark.parametrize(("model", "inputs", "spec", "code", "words"), REFUSED.values(), ids=REFUSED)
def test_a_wrong_request_is_refused_with_what_is_wrong(
    client: Client, model: str, inputs: dict[str, Any], spec: dict[str, Any], code: str, words: str
) -> None:
    with refused(code, words):
        client.predict(model, inputs, **spec)


@pytest.mark.parametrize(
    ("dtype", "x", "y"),
    [
        ("float32", tensor((4,), float_val=[2, 4]), [2, 4, 4, 4]),
        ("float32", tensor((1,), float_val=[2, 4, 6]), [2]),
        ("float32", tensor((2,)), [0, 0]),
        ("float64", tensor((2,), dtype=2, double_val=[0.1]), [0.1, 0.1]),
        ("uint8", tensor((3,), dtype=4, int_val=[300, -1]), [44, 255, 255]),
        ("int8", tensor((3,), dtype=6, int_val=[300, -1]), [44, -1, -1]),
        ("int64", tensor((2,), dtype=9, int64_val=[-(2**62)]), [-(2**62)] * 2),
        ("bool", tensor((2,), dtype=10, bool_val=[True, False]), [True, False]),
        ("float16", tensor((3,), dtype=19, half_val=[0x3C00, 0xC000]), [1, -2, -2]),
    ],
)
def test_lists_are_read_by_tensorflows_rules(client: Client, dtype: str, x: Any, y: list[Any]) -> None:
    """A short list repeats its last value, a long one is cut, and an empty one means zeros."""
    assert output(client.predict("echo", {"x": x}, signature=dtype), "y").tolist() == y


@pytest.mark.parametrize(
    ("method", "content", "code"), [("Predict", b"\xff\xff\xff", "INTERNAL"), ("Guess", b"", "UNIMPLEMENTED")]
)
def test_garbage_and_an_unknown_method_fail(client: Client, method: str, content: bytes, code: str) -> None:
    call: Any = client.channel.unary_unary(f"/tensorflow.serving.PredictionService/{method}")
    with refused(code):
        call(content, timeout=SECONDS)


def test_a_large_request_and_answer_pass(client: Client) -> None:
    """16 MiB, four times what gRPC allows by default."""
    x = np.arange(4 * 2**20, dtype=np.float32)
    np.testing.assert_array_equal(output(client.predict("half", {"x": x}), "y"), x / 2 + 3)


def test_as_many_calls_at_once_as_there_are_threads_are_answered(model_server: str) -> None:
    """By its flags: TensorFlow Serving's default is four threads for each CPU; more calls were RESOURCE_EXHAUSTED."""
    noise = {NOISE: noise_from_seeds(range(16))}
    with connected(model_server) as client:
        calls = [client.predicting(GENERATOR, noise) for _ in range(GRPC_MAX_THREADS // 2)]
        assert {call.code() for call in calls} == {grpc.StatusCode.OK}


@pytest.mark.parametrize(
    ("model", "signature", "shapes", "code"),
    [
        pytest.param("half", "", {"x": 5}, "INVALID_ARGUMENT", id="more rows than a batch"),
        pytest.param("half", "sum", {"a": (), "b": 1}, "INVALID_ARGUMENT", id="no first dimension"),
        pytest.param("half", "sum", {"a": 2, "b": 1}, "INVALID_ARGUMENT", id="unequal first dimensions"),
        pytest.param("witness", "unbatchable", {"x": 3}, "FAILED_PRECONDITION", id="an output without the rows"),
    ],
)
def test_what_cannot_run_in_batches_is_refused(
    batching_client: Client, model: str, signature: str, shapes: dict[str, Any], code: str
) -> None:
    with refused(code):
        inputs = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
        batching_client.predict(model, inputs, signature=signature)


def test_versions_are_listed_newest_first_or_the_one_that_is_named_by_number(client: Client) -> None:
    newest, oldest = (VersionStatus(version, "AVAILABLE", "OK", "") for version in (2, 1))
    assert client.statuses("half") == client.statuses("half", label="stable") == [newest, oldest]
    assert client.statuses("half", version=1) == [oldest]


@pytest.mark.parametrize(("name", "version", "word"), [("absent", None, "absent"), ("", None, ""), ("half", 99, "99")])
def test_the_status_of_what_is_unknown_is_not_found(client: Client, name: str, version: int | None, word: str) -> None:
    with refused("NOT_FOUND", word):
        client.statuses(name, version=version)


def test_metadata_describes_the_signatures_of_the_newest_version_or_the_one_that_is_named(client: Client) -> None:
    answer = client.metadata("half", "signature_def")
    assert (answer.model_spec.name, answer.model_spec.version.value) == ("half", 2)
    signatures = SignatureDefMap()
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
