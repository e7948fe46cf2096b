"""The client of the model server: what it sends, what it accepts, and what every failure becomes."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from numpy.typing import NDArray

from serving.apis import ModelVersionStatus, PredictRequest
from serving.contract import (
    CONFIDENCES,
    DISCRIMINATOR,
    GENERATOR,
    IMAGES,
    INDEX_PAGE,
    LOGITS,
    NOISE,
    PAGES,
    PROBABILITIES,
    SEED_INDEX,
)
from serving.tf_serving import client as client_module
from serving.tf_serving.client import (
    ERRORS,
    ContractError,
    DeadlineError,
    ModelClient,
    ModelNotServedError,
    ModelServerError,
    NoSignatureError,
    OverloadedError,
    UnreachableError,
    VersionNotFoundError,
    VersionStatus,
)
from tests.slow.headless_service import HeadlessService
from tests.support.misbehaving import MisbehavingServer, answer, failing, honest

pytestmark = pytest.mark.anyio

NOISE_ROWS = {NOISE: np.zeros((3, 100), np.float32)}
IMAGE_ROWS = {IMAGES: np.zeros((3, 28, 28, 1), np.uint8)}


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def server() -> Iterator[MisbehavingServer]:
    with MisbehavingServer("127.0.0.1:0") as started:
        yield started


@pytest.fixture
async def client(server: MisbehavingServer) -> AsyncIterator[ModelClient]:
    opened = ModelClient(server.target)
    yield opened
    await opened.close()


async def test_an_answer_names_the_servers_model_and_version(server: MisbehavingServer, client: ModelClient) -> None:
    server.behaviour = lambda request, context: answer(request, version=41)
    prediction = await client.predict(GENERATOR, NOISE_ROWS, timeout_s=5)
    assert (prediction.model, prediction.version) == (GENERATOR, 41)
    assert prediction.outputs[IMAGES].shape == (3, 28, 28, 1)
    assert prediction.outputs[IMAGES].dtype == np.uint8


async def test_what_is_sent_is_the_contracts_signature_and_the_version_asked_for(
    server: MisbehavingServer, client: ModelClient
) -> None:
    seen: list[PredictRequest] = []

    def behaviour(request: PredictRequest, context: grpc.ServicerContext) -> bytes:
        seen.append(request)
        return answer(request, version=7)

    server.behaviour = behaviour
    await client.predict(DISCRIMINATOR, IMAGE_ROWS, timeout_s=5)
    await client.predict(DISCRIMINATOR, IMAGE_ROWS, version=7, timeout_s=5)
    newest, seventh = (request.model_spec for request in seen)
    assert newest.signature_name == "serving_default"
    assert not newest.HasField("version")
    assert seventh.version.value == 7


async def test_another_signature_has_inputs_and_outputs_of_its_own(
    server: MisbehavingServer, client: ModelClient
) -> None:
    pages = {PAGES: np.arange(16)}
    index = await client.predict(GENERATOR, pages, signature=SEED_INDEX, version=1, timeout_s=5)
    assert index.outputs[CONFIDENCES].shape == (16, INDEX_PAGE)
    server.behaviour = lambda request, context: answer(request, {CONFIDENCES: np.zeros((16, 7), np.float32)})
    with pytest.raises(ContractError, match=r"confidences: shape \[16, 7\] in place of \[16, 4096\]"):
        await client.predict(GENERATOR, pages, signature=SEED_INDEX, timeout_s=5)
    with pytest.raises(ValueError, match=r"^generator takes one input, pages"):
        await client.predict(GENERATOR, NOISE_ROWS, signature=SEED_INDEX, timeout_s=5)


async def test_a_version_without_the_signature_is_told_from_other_failures(
    server: MisbehavingServer, client: ModelClient
) -> None:
    server.behaviour = failing(grpc.StatusCode.FAILED_PRECONDITION, 'Serving signature key "seed_index" not found.')
    with pytest.raises(NoSignatureError):
        await client.predict(GENERATOR, {PAGES: np.zeros(1, np.int64)}, signature=SEED_INDEX, timeout_s=5)
    server.behaviour = failing(grpc.StatusCode.FAILED_PRECONDITION, "Could not find variable dense/kernel")
    with pytest.raises(ContractError) as raised:
        await client.predict(GENERATOR, {PAGES: np.zeros(1, np.int64)}, signature=SEED_INDEX, timeout_s=5)
    assert type(raised.value) is ContractError


async def test_a_unix_socket_is_a_target(tmp_path: Path) -> None:
    with MisbehavingServer(f"unix:{tmp_path}/model-server.sock") as server:
        client = ModelClient(server.target)
        assert (await client.predict(GENERATOR, NOISE_ROWS, timeout_s=5)).version == 1
        await client.close()


async def test_model_versions_are_reported_as_the_server_tells_them(
    server: MisbehavingServer, client: ModelClient
) -> None:
    server.statuses[GENERATOR] = [(2, ModelVersionStatus.LOADING), (1, ModelVersionStatus.AVAILABLE)]
    assert await client.model_versions(GENERATOR, timeout_s=5) == [
        VersionStatus(2, "LOADING", "OK", ""),
        VersionStatus(1, "AVAILABLE", "OK", ""),
    ]


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK])
async def test_every_status_code_becomes_one_of_our_errors(
    server: MisbehavingServer, client: ModelClient, code: grpc.StatusCode
) -> None:
    server.behaviour = failing(code)
    with pytest.raises(ModelServerError) as raised:
        await client.predict(GENERATOR, NOISE_ROWS, timeout_s=5)
    assert type(raised.value) is ERRORS[code]
    assert raised.value.code == code.name
    assert raised.value.model == GENERATOR
    assert isinstance(raised.value.__cause__, grpc.aio.AioRpcError)


def test_every_error_is_in_the_tree_that_the_module_opens_with() -> None:
    tree = client_module.__doc__ or ""
    errors = [
        thing for thing in vars(client_module).values() if isinstance(thing, type) and thing.__name__.endswith("Error")
    ]
    ours = {error.__name__ for error in errors if issubclass(error, ModelServerError)}
    assert ours == {word for word in tree.split() if word.endswith("Error")}


async def test_a_full_queue_is_overload_and_not_absence(server: MisbehavingServer, client: ModelClient) -> None:
    server.behaviour = failing(
        grpc.StatusCode.UNAVAILABLE, "The batch scheduling queue to which this task was submitted is full"
    )
    with pytest.raises(OverloadedError):
        await client.predict(GENERATOR, NOISE_ROWS, timeout_s=5)


async def test_an_unreachable_server_is_reported_at_once(tmp_path: Path) -> None:
    client = ModelClient(f"unix:{tmp_path}/nobody.sock")
    async with asyncio.timeout(5):
        with pytest.raises(UnreachableError):
            await client.predict(GENERATOR, NOISE_ROWS, timeout_s=60)
    await client.close()


async def test_a_server_that_comes_back_is_used_again_within_about_a_second(tmp_path: Path) -> None:
    address = f"unix:{tmp_path}/model-server.sock"
    with MisbehavingServer(address):
        client = ModelClient(address)
        await client.predict(GENERATOR, NOISE_ROWS, timeout_s=5)
    with pytest.raises(UnreachableError):
        await client.predict(GENERATOR, NOISE_ROWS, timeout_s=5)
    with MisbehavingServer(address):
        async with asyncio.timeout(3):
            while True:
                try:
                    await client.predict(GENERATOR, NOISE_ROWS, timeout_s=5)
                    break
                except UnreachableError:
                    await asyncio.sleep(0.02)
    await client.close()


GONE = failing(grpc.StatusCode.UNAVAILABLE, "Socket closed")


class TestRetries:
    """gRPC retries a call once if it is UNAVAILABLE, on another server, and nothing else."""

    async def test_a_call_that_is_unavailable_is_retried_once(
        self, server: MisbehavingServer, client: ModelClient
    ) -> None:
        server.behaviour = GONE
        with pytest.raises(UnreachableError):
            await client.predict(GENERATOR, NOISE_ROWS, timeout_s=5)
        assert server.calls == 2

    async def test_the_next_address_answers_for_one_that_went_away(self) -> None:
        with MisbehavingServer("127.0.0.1:0") as gone, MisbehavingServer("127.0.0.1:0") as there:
            client = ModelClient(f"ipv4:{gone.target},{there.target}")
            async with asyncio.timeout(20):
                while not (gone.calls and there.calls):  # until it is connected with both
                    await client.predict(GENERATOR, NOISE_ROWS, timeout_s=5)
                gone.behaviour, gone.calls = GONE, 0
                while gone.calls < 3:
                    await client.predict(GENERATOR, NOISE_ROWS, timeout_s=5)
            await client.close()

    async def test_a_name_without_addresses_is_resolved_at_each_call(
        self, server: MisbehavingServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """gRPC by itself waits longer and longer, up to two minutes."""
        monkeypatch.setattr(client_module, "_RESOLVE_AGAIN_S", 0.0)
        with HeadlessService() as name:
            client = ModelClient(name.target(int(server.target.rpartition(":")[2])))
            for _ in range(4):
                before = name.questions
                with pytest.raises(UnreachableError):
                    await client.predict(GENERATOR, NOISE_ROWS, timeout_s=5)
                assert name.questions > before
            name.addresses = ["127.0.0.1"]
            assert (await client.predict(GENERATOR, NOISE_ROWS, timeout_s=5)).version == 1
            await client.close()

    @pytest.mark.parametrize(
        ("code", "message"),
        [
            (grpc.StatusCode.RESOURCE_EXHAUSTED, "Server Threadpool Exhausted"),
            (grpc.StatusCode.INVALID_ARGUMENT, "no"),
            (grpc.StatusCode.INTERNAL, "no"),
            (grpc.StatusCode.DEADLINE_EXCEEDED, "no"),
        ],
    )
    async def test_other_failures_are_not_retried(
        self, server: MisbehavingServer, client: ModelClient, code: grpc.StatusCode, message: str
    ) -> None:
        server.behaviour = failing(code, message)
        with pytest.raises(ModelServerError):
            await client.predict(GENERATOR, NOISE_ROWS, timeout_s=5)
        assert server.calls == 1

    async def test_there_are_only_so_many(self, server: MisbehavingServer, client: ModelClient) -> None:
        server.behaviour = GONE
        for _ in range(30):
            with pytest.raises(UnreachableError):
                await client.predict(GENERATOR, NOISE_ROWS, timeout_s=5)
        assert 30 < server.calls <= 40
        server.behaviour = honest
        for _ in range(200):
            await client.predict(GENERATOR, NOISE_ROWS, timeout_s=5)
        server.behaviour, server.calls = GONE, 0
        with pytest.raises(UnreachableError):
            await client.predict(GENERATOR, NOISE_ROWS, timeout_s=5)
        assert server.calls == 2

    async def test_both_attempts_share_the_calls_time(self, server: MisbehavingServer, client: ModelClient) -> None:
        left: list[float] = []

        def slowly_gone(request: PredictRequest, context: grpc.ServicerContext) -> bytes:
            left.append(context.time_remaining())
            server.release.wait(0.3)
            return GONE(request, context)

        server.behaviour = slowly_gone
        with pytest.raises(UnreachableError):
            await client.predict(GENERATOR, NOISE_ROWS, timeout_s=5)
        assert left[1] < left[0] - 0.25


async def test_time_running_out_is_a_deadline_error(server: MisbehavingServer, client: ModelClient) -> None:
    def slow(request: PredictRequest, context: grpc.ServicerContext) -> bytes:
        server.release.wait(30)
        return answer(request)

    server.behaviour = slow
    with pytest.raises(DeadlineError):
        await client.predict(GENERATOR, NOISE_ROWS, timeout_s=0.2)


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
    with pytest.raises(error):
        await client.predict(GENERATOR, NOISE_ROWS, version=2, timeout_s=5)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({LOGITS: None}, "no dtype"),
        ({LOGITS: np.zeros(3, np.float64)}, "logits: float64 in place of float32"),
        ({LOGITS: np.zeros(2, np.float32)}, r"logits: shape \[2\] in place of \[3\]"),
        ({LOGITS: np.zeros((3, 1), np.float32)}, r"logits: shape \[3, 1\] in place of \[3\]"),
        ({LOGITS: np.array([0, np.nan, 0], np.float32)}, "logits: numbers that are not finite"),
        ({LOGITS: np.array([0, 0, np.inf], np.float32)}, "logits: numbers that are not finite"),
        ({PROBABILITIES: np.array([np.nan] * 3, np.float32)}, "probabilities: numbers that are not finite"),
    ],
)
async def test_an_answer_that_breaks_the_contract_is_refused(
    server: MisbehavingServer, client: ModelClient, changes: dict[str, NDArray[Any] | None], complaint: str
) -> None:
    server.behaviour = lambda request, context: answer(request, changes)
    with pytest.raises(ContractError, match=complaint) as raised:
        await client.predict(DISCRIMINATOR, IMAGE_ROWS, timeout_s=5)
    assert raised.value.code == "BAD_ANSWER"


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(lambda request, context: b"\xff\xfe garbage", id="garbage"),
        pytest.param(lambda request, context: b"", id="nothing"),
        pytest.param(lambda request, context: answer(request, version=2), id="another version"),
        pytest.param(lambda request, context: answer(request, version=None), id="no version"),
        pytest.param(lambda request, context: answer(request, model="cat"), id="another model"),
        pytest.param(lambda request, context: answer(request, {IMAGES: None}), id="no images"),
    ],
)
async def test_an_answer_to_something_else_is_refused(
    server: MisbehavingServer,
    client: ModelClient,
    wrong: Callable[[PredictRequest, grpc.ServicerContext], bytes],
) -> None:
    server.behaviour = wrong
    with pytest.raises(ContractError):
        await client.predict(GENERATOR, NOISE_ROWS, version=1, timeout_s=5)


@pytest.mark.parametrize(
    "inputs",
    [
        {},
        {"z": NOISE_ROWS[NOISE]},
        NOISE_ROWS | IMAGE_ROWS,
        {NOISE: np.zeros((0, 100), np.float32)},
        {NOISE: np.zeros((1, 99), np.float32)},
        {NOISE: np.zeros(100, np.float32)},
        {NOISE: np.float32(1)},
        {NOISE: np.zeros((1, 100), np.float64)},
        {NOISE: np.full((1, 100), np.nan, np.float32)},
    ],
)
async def test_inputs_outside_the_contract_never_leave(
    server: MisbehavingServer, client: ModelClient, inputs: dict[str, NDArray[Any]]
) -> None:
    """TensorFlow Serving checks no shapes, and an empty batch makes it hang."""
    with pytest.raises(ValueError, match=r"^generator"):
        await client.predict(GENERATOR, inputs, timeout_s=5)
    assert server.calls == 0
