"""Outputs of the model server leave the memory with their request, in a process that seldom collects garbage."""

import asyncio
import gc
import weakref
from typing import Any

import numpy as np

from api.http.current_request import CurrentRequest, current
from api.telemetry.metrics import Metrics
from api.upstream.inference import Inference
from serving.contract import GENERATOR, IMAGES
from serving.tf_serving.client import Array, ModelClient, Prediction


class Client(ModelClient):
    """A model server without a network: it makes black digits. ``made`` refers to them."""

    def __init__(self) -> None:
        self.made: list[weakref.ref[Array]] = []

    async def predict(self, model: str, rows: Array, **_: Any) -> Prediction:
        images = np.zeros((len(rows), 28, 28, 1), np.uint8)
        self.made.append(weakref.ref(images))
        return Prediction(model, 1, {IMAGES: images})


def test_outputs_do_not_wait_for_the_garbage_collector() -> None:
    async def ask() -> None:
        current.set(CurrentRequest())
        client = Client()
        inference = Inference(client, Metrics())
        for _ in range(3):
            await inference.predict(GENERATOR, range(256), version=None)
        await asyncio.sleep(0)  # the last call ends
        assert all(images() is None for images in client.made)

    gc.disable()
    try:
        asyncio.run(ask())
    finally:
        gc.enable()
