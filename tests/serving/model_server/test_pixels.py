"""The package's own generator: one seed's pixels, whatever the batch size and the server."""

from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from serving.contract import BATCH_SIZES, GENERATOR, IMAGES, NOISE
from serving.noise import noise_from_seeds
from serving.pretrained import MODELS_DIR
from tests.serving.model_server.client import Client, output
from tests.serving.model_server.process import config, connected, server_process
from tests.support.pixels import assert_same_pixels

SEEDS = range(256)


@pytest.fixture(scope="module")
def client(program: str) -> Iterator[Client]:
    with (
        server_process(program, config({GENERATOR: MODELS_DIR / GENERATOR})) as server,
        connected(server) as client,
    ):
        yield client


def draw(client: Client, size: int) -> NDArray[np.uint8]:
    """The images of SEEDS, in batches of ``size``."""
    noise = noise_from_seeds(SEEDS)
    answers = [client.predict(GENERATOR, {NOISE: noise[at : at + size]}) for at in range(0, len(noise), size)]
    images: NDArray[np.uint8] = np.concatenate([output(answer, IMAGES) for answer in answers])
    return images


@pytest.fixture(scope="module")
def alone(client: Client) -> NDArray[np.uint8]:
    return draw(client, 1)


@pytest.mark.parametrize("size", BATCH_SIZES[1:])
def test_a_larger_batch_moves_pixels_only_where_rounding_tips(
    client: Client, alone: NDArray[np.uint8], size: int
) -> None:
    assert_same_pixels(draw(client, size), alone)
