"""PredictionService.Predict with batching: at most 4 rows in a request, filled up to 1, 2 or 4."""

from collections.abc import Iterable
from typing import Any

import grpc
import numpy as np
import pytest

from tests.serving.model_server.client import SECONDS, Client, output, predict_request, refused

INVALID_ARGUMENT = grpc.StatusCode.INVALID_ARGUMENT
X = np.array([0, 1, 2.5], np.float32)


def waits(*seconds: float) -> dict[str, Any]:
    return {"seconds": np.array(seconds, np.float32)}


def call_together(client: Client, requests: Iterable[Any]) -> list[Any]:
    """Sends all requests before it waits for the first answer; returns answers and errors in their order."""
    futures = [client.prediction.Predict.future(request, timeout=SECONDS) for request in requests]
    return [future.exception(SECONDS) or future.result() for future in futures]


def test_answers_are_those_without_batching(batching_client: Client) -> None:
    np.testing.assert_array_equal(output(batching_client.predict("half", {"x": X}), "y"), X / 2 + 3)
    answer = batching_client.predict("half", {"x": X}, signature="both", output_filter=("z",), version=1)
    assert list(answer.outputs) == ["z"]
    np.testing.assert_array_equal(output(answer, "z"), X * 2)


def test_requests_of_different_sizes_get_their_own_answers(batching_client: Client) -> None:
    sizes = (1, 2, 1, 1, 1, 1)  # fewer rows than the queue holds
    requests = [predict_request("half", {"x": np.full(size, i, np.float32)}) for i, size in enumerate(sizes)]
    answers = [output(answer, "y").tolist() for answer in call_together(batching_client, requests)]
    assert answers == [[i / 2 + 3] * size for i, size in enumerate(sizes)]


def test_requests_for_another_signature_are_answered_meanwhile(batching_client: Client) -> None:
    """With wide outputs of several dtypes, filled up from 3 rows to 4, while the default one keeps the model busy."""
    wanted = [np.array(pages) for pages in ([5, 0, 255], [1], [2, 3])]
    requests = [predict_request("witness", {"pages": pages}, signature="pages") for pages in wanted]
    busy = predict_request("witness", waits(0.1))
    first, *answers, last = call_together(batching_client, [busy, *requests, busy])
    assert first.model_spec.signature_name == last.model_spec.signature_name == "serving_default"
    for pages, answer in zip(wanted, answers, strict=True):
        assert answer.model_spec.signature_name == "pages"
        assert output(answer, "pages").tolist() == pages.tolist()
        for name, dtype in (("bytes", np.uint8), ("numbers", np.float32)):
            found = output(answer, name)
            assert found.dtype == dtype
            np.testing.assert_array_equal(found, np.repeat(pages[:, np.newaxis], 4096, axis=1))


def test_more_rows_than_a_batch_are_invalid(batching_client: Client) -> None:
    with refused(INVALID_ARGUMENT, "5", "4"):
        batching_client.predict("half", {"x": np.zeros(5, np.float32)})


@pytest.mark.parametrize(
    "inputs",
    [{"a": np.float32(1) * np.ones(()), "b": np.ones(1)}, {"a": np.ones(2), "b": np.ones(1)}],
    ids=["no first dimension", "unequal first dimensions"],
)
def test_inputs_that_cannot_be_batched_are_invalid(batching_client: Client, inputs: dict[str, Any]) -> None:
    floats = {name: np.asarray(value, np.float32) for name, value in inputs.items()}
    with refused(INVALID_ARGUMENT):
        batching_client.predict("half", floats, signature="sum")


def test_a_signature_that_does_not_keep_the_rows_cannot_run_in_batches(batching_client: Client) -> None:
    with refused(grpc.StatusCode.FAILED_PRECONDITION):
        batching_client.predict("witness", {"x": X}, signature="unbatchable")


def test_a_request_that_fails_alone_has_the_operations_code(batching_client: Client) -> None:
    with refused(INVALID_ARGUMENT):
        batching_client.predict("witness", {"x": np.ones((2, 4), np.float32)}, signature="dot")


def test_a_request_whose_time_has_run_out_ends_in_time(batching_client: Client) -> None:
    busy = batching_client.prediction.Predict.future(predict_request("witness", waits(2)), timeout=SECONDS)
    with refused(grpc.StatusCode.DEADLINE_EXCEEDED):
        batching_client.prediction.Predict(predict_request("witness", waits(2)), timeout=0.2)
    assert output(busy.result(SECONDS), "rows").size == 1
