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


@pytest.mark.parametrize(
    ("model", "signature", "shapes", "code"),
    [
        pytest.param("half", "", {"x": 5}, INVALID_ARGUMENT, id="more rows than a batch"),
        pytest.param("half", "sum", {"a": (), "b": 1}, INVALID_ARGUMENT, id="no first dimension"),
        pytest.param("half", "sum", {"a": 2, "b": 1}, INVALID_ARGUMENT, id="unequal first dimensions"),
        pytest.param(
            "witness", "unbatchable", {"x": 3}, grpc.StatusCode.FAILED_PRECONDITION, id="an output without the rows"
        ),
    ],
)
def test_what_cannot_run_in_batches_is_refused(
    batching_client: Client, model: str, signature: str, shapes: dict[str, Any], code: grpc.StatusCode
) -> None:
    with refused(code):
        inputs = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
        batching_client.predict(model, inputs, signature=signature)


def test_a_request_whose_time_has_run_out_ends_in_time(batching_client: Client) -> None:
    busy = batching_client.prediction.Predict.future(predict_request("witness", waits(2)), timeout=SECONDS)
    with refused(grpc.StatusCode.DEADLINE_EXCEEDED):
        batching_client.prediction.Predict(predict_request("witness", waits(2)), timeout=0.2)
    assert output(busy.result(SECONDS), "rows").size == 1
