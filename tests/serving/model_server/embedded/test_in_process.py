"""The models in the process of their only client: calls end as over gRPC."""

from collections.abc import AsyncIterator

import anyio
import numpy as np
import pytest

from serving.contract import DISCRIMINATOR, GENERATOR, IMAGES
from serving.model_server.in_process import running_models
from serving.model_server.loaded_version import REQUESTS_AT_ONCE
from serving.noise import noise_from_seeds
from serving.pretrained import MODELS_DIR
from serving.tf_serving.client import DeadlineError, ModelClient, ModelNotServedError, VersionNotFoundError
from serving.tf_serving.model_config import ModelConfig
from tests.serving.model_server.embedded.conftest import Gate

pytestmark = pytest.mark.anyio

SECONDS = 60
NOISE_ROWS = noise_from_seeds([7, 8])


@pytest.fixture
async def client() -> AsyncIterator[ModelClient]:
    """A client of the package's generator alone."""
    with running_models((ModelConfig(GENERATOR, MODELS_DIR / GENERATOR),)) as transport:
        client = ModelClient(transport)
        with anyio.fail_after(SECONDS):
            while not await is_available(client):  # noqa: ASYNC110 - another thread's
                await anyio.sleep(0.05)
        yield client
        await client.close()


async def is_available(client: ModelClient) -> bool:
    try:
        return any(one.state == "AVAILABLE" for one in await client.model_versions(GENERATOR, timeout_s=SECONDS))
    except ModelNotServedError:  # The loading has not begun.
        return False


async def test_a_call_is_answered_or_fails_with_its_error(client: ModelClient) -> None:
    answer = await client.predict(GENERATOR, NOISE_ROWS, timeout_s=SECONDS)
    assert (answer.version, answer.outputs[IMAGES].shape) == (3, (2, 28, 28, 1))
    with pytest.raises(ModelNotServedError):
        await client.predict(DISCRIMINATOR, np.zeros((1, 28, 28, 1), np.uint8), timeout_s=SECONDS)
    with pytest.raises(VersionNotFoundError):
        await client.predict(GENERATOR, NOISE_ROWS, version=9, timeout_s=SECONDS)


async def test_a_call_whose_time_runs_out_before_its_turn_is_not_run(client: ModelClient, gate: Gate) -> None:
    async with anyio.create_task_group() as busy:
        for _ in range(REQUESTS_AT_ONCE):
            busy.start_soon(lambda: client.predict(GENERATOR, NOISE_ROWS, timeout_s=SECONDS))
        with anyio.fail_after(SECONDS):
            while gate.runs < REQUESTS_AT_ONCE:  # noqa: ASYNC110 - another thread's
                await anyio.sleep(0.01)
        with pytest.raises(DeadlineError):
            await client.predict(GENERATOR, NOISE_ROWS, timeout_s=0.1)
        gate.opened.set()
    await client.predict(GENERATOR, NOISE_ROWS, timeout_s=SECONDS)
    assert gate.runs == REQUESTS_AT_ONCE + 1
