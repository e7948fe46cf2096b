"""The client of the model server: what it sends, accepts and tries again. tests/api shows what failures become."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import numpy as np
import pytest

from serving.apis import ModelVersionStatus
from serving.contract import DISCRIMINATOR, GENERATOR, LOGITS, PROBABILITIES
from serving.tf_serving import client as client_module
from serving.tf_serving.client import (
    ContractError,
    GrpcTransport,
    ModelClient,
    ModelNotServedError,
    ModelServerError,
    UnreachableError,
    VersionNotFoundError,
)
from tests.support.headless_service import HeadlessService
from tests.support.misbehaving import Behaviour, MisbehavingServer, answer, failing, honest

pytestmark = pytest.mark.anyio

NOISE_ROWS = np.zeros((3, 100), np.float32)
IMAGE_ROWS = np.zeros((3, 28, 28, 1), np.uint8)
GONE = failing(grpc.StatusCode.UNAVAILABLE, "Socket closed")


@pytest.fixture
def server() -> Iterator[MisbehavingServer]:
    with MisbehavingServer("127.0.0.1:0") as started:
        yield started


@pytest.fixture
async def client(server: MisbehavingServer) -> AsyncIterator[ModelClient]:
    opened = ModelClient(GrpcTransport(server.target))
    yield opened
    await opened.close()


async def fails(client: ModelClient, error: type[ModelServerError] = UnreachableError, **more: Any) -> ModelServerError:
    """Calls the generator, asserts that it fails with exactly this error, and returns it."""
    with pytest.raises(ModelServerError) as raised:
        await client.predict(GENERATOR, NOISE_ROWS, **{"timeout_s": 60, **more})
    assert type(raised.value) is error
    return raised.value


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK])
async def test_only_what_is_unavailable_is_tried_again_and_once(
    server: MisbehavingServer, client: ModelClient, code: grpc.StatusCode
) -> None:
    """tests/api/test_faults.py has what becomes of each code over HTTP."""
    server.behaviour = failing(code)
    with pytest.raises(ModelServerError) as raised:
        await client.predict(GENERATOR, NOISE_ROWS, timeout_s=60)
    assert (raised.value.code, raised.value.model) == (code.name, GENERATOR)
    assert server.calls == 1 + (code is grpc.StatusCode.UNAVAILABLE)


async def test_calls_resolve_an_unknown_name_again(server: MisbehavingServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """gRPC by itself waits longer and longer, up to two minutes."""
    monkeypatch.setattr(client_module, "_RESOLVE_AGAIN_S", 0.0)
    with HeadlessService() as name:
        client = ModelClient(GrpcTransport(name.target(int(server.target.rpartition(":")[2]))))
        for _ in range(4):
            before = name.questions
            await fails(client)
            assert name.questions > before
        name.addresses = ["127.0.0.1"]
        assert (await client.predict(GENERATOR, NOISE_ROWS, timeout_s=60)).version == 1
        await client.close()


async def test_retries_end_while_most_calls_fail(server: MisbehavingServer, client: ModelClient) -> None:
    server.behaviour = GONE
    for _ in range(30):
        await fails(client)
    assert 30 < server.calls <= 40
    server.behaviour = honest
    for _ in range(200):
        await client.predict(GENERATOR, NOISE_ROWS, timeout_s=60)
    server.behaviour, server.calls = GONE, 0
    await fails(client)
    assert server.calls == 2


AVAILABLE, LOADING, END = ModelVersionStatus.AVAILABLE, ModelVersionStatus.LOADING, ModelVersionStatus.END


@pytest.mark.parametrize(
    ("statuses", "error"),
    [
        ([(1, AVAILABLE)], VersionNotFoundError),
        ([(1, AVAILABLE), (2, END)], VersionNotFoundError),
        ([(2, LOADING), (1, AVAILABLE)], ModelNotServedError),
        ([(2, END)], ModelNotServedError),
        (None, ModelNotServedError),
    ],
    ids=["no such version", "unloaded", "being loaded", "nothing is available", "an unknown model"],
)
async def test_only_a_missing_version_of_a_served_model_is_the_callers_mistake(
    server: MisbehavingServer,
    client: ModelClient,
    statuses: list[tuple[int, int]] | None,
    error: type[ModelServerError],
) -> None:
    """NOT_FOUND has several meanings."""
    server.behaviour = failing(grpc.StatusCode.NOT_FOUND, "Servable not found for request")
    del server.statuses[GENERATOR]
    if statuses is not None:
        server.statuses[GENERATOR] = statuses
    await fails(client, error, version=2)


def changed(output: str, value: Any) -> Behaviour:
    """Answers with another value of an output, or without it."""
    return lambda request, context: answer(request, {output: value if value is None else np.array(value, np.float32)})


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        (changed(LOGITS, None), "no dtype"),
        (
            lambda request, context: answer(request, {LOGITS: np.zeros(3, np.float64)}),
            "logits: float64 in place of float32",
        ),
        (changed(LOGITS, [0, 0]), r"logits: shape \[2\] in place of \[3\]"),
        (changed(LOGITS, [[0]] * 3), r"logits: shape \[3, 1\] in place of \[3\]"),
        (changed(LOGITS, [0, np.nan, 0]), "logits: numbers that are not finite"),
        (changed(PROBABILITIES, [0, 0, np.inf]), "probabilities: numbers that are not finite"),
        (changed(PROBABILITIES, [-np.inf, 0, 0]), "probabilities: numbers that are not finite"),
        (lambda request, context: b"\xff\xfe garbage", "not a PredictResponse"),
        (lambda request, context: b"", "no dtype"),
        (lambda request, context: answer(request, version=2), "asked for version 1"),
        (lambda request, context: answer(request, version=None), "asked for version 1"),
        (lambda request, context: answer(request, model="cat"), "asked for version 1"),
    ],
)
async def test_an_answer_that_breaks_the_contract_is_refused(
    server: MisbehavingServer, client: ModelClient, wrong: Behaviour, complaint: str
) -> None:
    server.behaviour = wrong
    with pytest.raises(ContractError, match=complaint) as raised:
        await client.predict(DISCRIMINATOR, IMAGE_ROWS, version=1, timeout_s=60)
    assert raised.value.code == "BAD_ANSWER"
