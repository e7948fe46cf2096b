"""PredictionService.Predict, without batching."""

from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from tensorflow.core.framework import tensor_pb2

from tests.serving.model_server import saved_models
from tests.serving.model_server.client import SECONDS, Client, output, refused
from tests.serving.model_server.process import config, connected, server_process
from tests.serving.model_server.saved_models import DTYPES
from tests.support.processes import EMBEDDED

NOT_FOUND = grpc.StatusCode.NOT_FOUND
INVALID_ARGUMENT = grpc.StatusCode.INVALID_ARGUMENT
FAILED_PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION
X = np.array([0, 1, 2.5], np.float32)
UNREADABLE = "tensor parsing error: x"


def tensor(shape: tuple[int, ...], **fields: Any) -> Any:
    proto = tensor_pb2.TensorProto(dtype=fields.pop("dtype", 1), **fields)
    proto.tensor_shape.SetInParent()
    for size in shape:
        proto.tensor_shape.dim.add(size=size)
    return proto


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
def test_the_version_or_the_label_answers_that_is_named_and_the_newest_otherwise(
    client: Client, spec: dict[str, Any], y: float, version: int
) -> None:
    answer = client.predict("half", {"x": np.array([4], np.float32)}, **spec)
    assert output(answer, "y").tolist() == [y]
    used = answer.model_spec
    signature = spec.get("signature", "serving_default")
    assert (used.name, used.version.value, used.signature_name) == ("half", version, signature)


def test_an_output_filter_chooses_outputs(client: Client) -> None:
    answer = client.predict("half", {"x": X}, signature="both", output_filter=("z",))
    assert list(answer.outputs) == ["z"]
    np.testing.assert_array_equal(output(answer, "z"), X * 2)
    both = client.predict("half", {"x": X}, signature="both", output_filter=("z", "y"))
    assert set(both.outputs) == {"y", "z"}


@pytest.mark.parametrize("dtype", DTYPES)
def test_values_of_every_dtype_come_back_as_they_were(client: Client, dtype: str) -> None:
    values = np.array([0, 1]).astype(dtype)
    answer = client.predict("echo", {"x": values}, signature=dtype)
    np.testing.assert_array_equal(output(answer, "y"), values)
    assert output(answer, "y").dtype == values.dtype


def test_strings_come_back_as_they_were_or_the_embedded_server_refuses_the_version(
    program: str, tmp_path: Path
) -> None:
    """As a list: TensorFlow cannot read the strings that TensorFlow Serving packs into ``tensor_content``."""
    saved_models.save_text(tmp_path / "text" / "1")
    models_config = config({"text": tmp_path / "text"})
    flags = [] if program == EMBEDDED else ["--enable_serialization_as_tensor_content=false"]
    with server_process(program, models_config, *flags) as server:
        if program == EMBEDDED:
            assert server.wait() == 1
            assert "UNIMPLEMENTED" in server.log
            assert "Serve this model with TensorFlow Serving" in server.log
            return
        with connected(server) as client:
            values = np.array([b"", b"\xff\x00"], object)
            np.testing.assert_array_equal(output(client.predict("text", {"x": values}), "y"), values)


def test_numbers_are_answered_as_raw_bytes(client: Client) -> None:
    answer = client.predict("half", {"x": X})
    assert answer.outputs["y"].tensor_content == (X / 2 + 3).tobytes()


def test_no_rows_are_answered_with_no_rows(client: Client) -> None:
    assert output(client.predict("half", {"x": np.ones(0, np.float32)}), "y").shape == (0,)


def test_a_shape_other_than_the_signatures_passes_if_the_operations_take_it_except_in_the_embedded_server(
    client: Client, program: str
) -> None:
    """The signature says [N]."""
    index = np.array([[0, 1], [2, 0]], np.int32)
    if program == EMBEDDED:
        with refused(INVALID_ARGUMENT, "[-1]", "[2, 2]"):
            client.predict("witness", {"index": index}, signature="item")
        return
    answer = client.predict("witness", {"index": index}, signature="item")
    assert output(answer, "y").tolist() == [[10, 20], [30, 10]]


def test_a_value_that_an_operation_cannot_take_is_invalid_except_in_the_embedded_server(
    client: Client, program: str
) -> None:
    if program == EMBEDDED:
        answer = client.predict("witness", {"index": np.array([0, 7], np.int32)}, signature="item")
        assert output(answer, "y").tolist() == [10, 0]
        return
    with refused(INVALID_ARGUMENT, "7"):
        client.predict("witness", {"index": np.array([0, 7], np.int32)}, signature="item")


REFUSED: dict[str, tuple[str, dict[str, Any], dict[str, Any], grpc.StatusCode, str]] = {
    "unknown model": ("absent", {"x": X}, {}, NOT_FOUND, "Servable not found for request: Latest(absent)"),
    "unknown model's version": ("absent", {"x": X}, {"version": 1}, NOT_FOUND, "absent"),
    "unknown version": ("half", {"x": X}, {"version": 99}, NOT_FOUND, "99"),
    "unknown label": ("half", {"x": X}, {"label": "beta"}, INVALID_ARGUMENT, "servable version label: beta"),
    "no model name": ("", {"x": X}, {}, INVALID_ARGUMENT, ""),
    "unknown signature": ("half", {"x": X}, {"signature": "upside_down"}, FAILED_PRECONDITION, "upside_down"),
    "no input": ("half", {}, {}, INVALID_ARGUMENT, "x"),
    "extra input": ("half", {"x": X, "extra": X}, {}, INVALID_ARGUMENT, "extra"),
    "misnamed input": ("half", {"wrong": X}, {}, INVALID_ARGUMENT, "wrong"),
    "one input of two": ("half", {"a": X}, {"signature": "sum"}, INVALID_ARGUMENT, "Missing but required: {b}"),
    "integers": ("half", {"x": np.array([1], np.int32)}, {}, INVALID_ARGUMENT, "to be float but int32 is provided"),
    "strings": ("half", {"x": np.array([b"1"], object)}, {}, INVALID_ARGUMENT, "to be float"),
    "wrong shape": ("witness", {"x": np.ones((2, 4), np.float32)}, {"signature": "dot"}, INVALID_ARGUMENT, ""),
    "content too short": ("half", {"x": tensor((2,), tensor_content=b"1234567")}, {}, INVALID_ARGUMENT, UNREADABLE),
    "content too long": ("half", {"x": tensor((1,), tensor_content=b"12345678")}, {}, INVALID_ARGUMENT, UNREADABLE),
    "dimension -1": ("half", {"x": tensor((-1,), float_val=[1])}, {}, INVALID_ARGUMENT, UNREADABLE),
    "an empty tensor": ("half", {"x": tensor_pb2.TensorProto()}, {}, INVALID_ARGUMENT, UNREADABLE),
    "unknown output": ("half", {"x": X}, {"output_filter": ("sideways",)}, INVALID_ARGUMENT, "sideways"),
    "output twice": ("half", {"x": X}, {"output_filter": ("y", "y")}, INVALID_ARGUMENT, "duplicate"),
}


@pytest.mark.parametrize(("model", "inputs", "spec", "code", "words"), REFUSED.values(), ids=REFUSED)
def test_a_wrong_request_is_refused_with_what_is_wrong(
    client: Client, model: str, inputs: dict[str, Any], spec: dict[str, Any], code: grpc.StatusCode, words: str
) -> None:
    with refused(code, words):
        client.predict(model, inputs, **spec)


def test_a_short_list_repeats_its_last_value_and_a_long_one_is_cut(client: Client) -> None:
    short = client.predict("half", {"x": tensor((4,), float_val=[2, 4])})
    assert output(short, "y").tolist() == [4, 5, 5, 5]
    long = client.predict("half", {"x": tensor((1,), float_val=[2, 4, 6])})
    assert output(long, "y").tolist() == [4]


@pytest.mark.parametrize(
    ("method", "content", "code"),
    [("Predict", b"\xff\xff\xff", grpc.StatusCode.INTERNAL), ("Guess", b"", grpc.StatusCode.UNIMPLEMENTED)],
)
def test_garbage_is_internal_and_an_unknown_method_unimplemented(
    client: Client, method: str, content: bytes, code: grpc.StatusCode
) -> None:
    call: Any = client.channel.unary_unary(f"/tensorflow.serving.PredictionService/{method}")
    with refused(code):
        call(content, timeout=SECONDS)


def test_a_large_request_and_answer_pass(client: Client) -> None:
    """16 MiB, four times what gRPC allows by default."""
    x = np.arange(4 * 2**20, dtype=np.float32)
    np.testing.assert_array_equal(output(client.predict("half", {"x": x}), "y"), x / 2 + 3)
