"""The client of the model server: what it sends, accepts and tries again. tests/api shows what failures become."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import numpy as np
import pytest

from serving.apis import ModelVersionStatus
from serving.contract import DISCRIMINATOR, GENERATOR, LOGITS, PROBABILITIES
from serving.tf_serving import client as library
from tests.support.misbehaving import Behaviour, MisbehavingServer, answer, failing, honest
from tests.support.servers import HeadlessService, serving

pytestmark = pytest.mark.anyio

NOISE_ROWS = np.zeros((3, 100), np.float32)
IMAGE_ROWS = np.zeros((3, 28, 28, 1), np.uint8)
GONE = failing(grpc.StatusCode.UNAVAILABLE, "Socket closed")


@pytest.fixture
def server() -> Iterator[MisbehavingServer]:
    with MisbehavingServer("127.0.0.1:0") as started:
        yield started


@pytest.fixture
async def client(server: MisbehavingServer) -> AsyncIterator[library.ModelClient]:
    opened = library.ModelClient(library.GrpcTransport(server.target))
    yield opened
    await opened.close()


async def error_of(client: library.ModelClient, **more: Any) -> library.ModelServerError:
    """Returns the error of a call of the generator."""
    with pytest.raises(library.ModelServerError) as raised:
        await client.predict(GENERATOR, NOISE_ROWS, timeout_s=60, **more)
    return raised.value


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK])
async def test_only_what_is_unavailable_is_tried_again_and_once(
    server: MisbehavingServer, client: library.ModelClient, code: grpc.StatusCode
) -> None:
    server.behaviour = failing(code)
    error = await error_of(client)
    assert (error.code, error.model) == (code.name, GENERATOR)
    assert server.calls == 1 + (code is grpc.StatusCode.UNAVAILABLE)


async def test_calls_resolve_an_unknown_name_again(server: MisbehavingServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """gRPC by itself waits longer and longer, up to two minutes."""
    monkeypatch.setattr(library, "_RESOLVE_AGAIN_S", 0.0)
    with serving(HeadlessService()) as name:
        client = library.ModelClient(library.GrpcTransport(name.target(int(server.target.rpartition(":")[2]))))
        for _ in range(4):
            before = name.questions
            assert type(await error_of(client)) is library.UnreachableError
            assert name.questions > before
        name.addresses = ["127.0.0.1"]
        assert (await client.predict(GENERATOR, NOISE_ROWS, timeout_s=60)).version == 1
        await client.close()


async def test_retries_end_while_most_calls_fail(server: MisbehavingServer, client: library.ModelClient) -> None:
    server.behaviour = GONE
    for _ in range(30):
        assert type(await error_of(client)) is library.UnreachableError
    assert 30 < server.calls <= 40
    server.behaviour = honest
    for _ in range(200):
        await client.predict(GENERATOR, NOISE_ROWS, timeout_s=60)
    server.behaviour, server.calls = GONE, 0
    await error_of(client)
    assert server.calls == 2


AVAILABLE, LOADING, END = ModelVersionStatus.AVAILABLE, ModelVersionStatus.LOADING, ModelVersionStatus.END


@pytest.mark.parametrize(
    ("statuses", "error"),
    [
        ([(1, AVAILABLE)], library.VersionNotFoundError),
        ([(1, AVAILABLE), (2, END)], library.VersionNotFoundError),
        ([(2, LOADING), (1, AVAILABLE)], library.ModelNotServedError),
        ([(2, END)], library.ModelNotServedError),
        ([], library.ModelNotServedError),
    ],
    ids=["no such version", "unloaded", "being loaded", "nothing is available", "an unknown model"],
)
async def test_only_a_missing_version_of_a_served_model_is_the_callers_mistake(
    server: MisbehavingServer,
    client: library.ModelClient,
    statuses: list[tuple[int, int]],
    error: type[library.ModelServerError],
) -> None:
    server.behaviour = failing(grpc.StatusCode.NOT_FOUND, "Servable not found for request")
    server.statuses = {GENERATOR: statuses} if statuses else {}
    assert type(await error_of(client, version=2)) is error


def changed(output: str, value: Any, dtype: type = np.float32) -> Behaviour:
    """Answers with another value of an output, or without it."""
    return lambda request, context: answer(request, {output: value if value is None else np.array(value, dtype)})


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        (changed(LOGITS, None), "no dtype"),
        (changed(LOGITS, [0, 0, 0], np.float64), "logits: float64 in place of float32"),
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
    server: MisbehavingServer, client: library.ModelClient, wrong: Behaviour, complaint: str
) -> None:
    server.behaviour = wrong
    with pytest.raises(library.ContractError, match=complaint) as raised:
        await client.predict(DISCRIMINATOR, IMAGE_ROWS, version=1, timeout_s=60)
    assert raised.value.code == "BAD_ANSWER"
