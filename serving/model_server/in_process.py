"""The embedded model server in the process of its only client, without a socket.

with running_models(model_config.from_directory(Path("models"))) as transport:
    client = ModelClient(transport)
"""

import asyncio
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, NoReturn

import grpc
from google.protobuf.message import Message

from serving.errors import START_AGAIN, UserError
from serving.model_server.errors import ServingError
from serving.model_server.manager import Manager
from serving.model_server.options import ServerOptions
from serving.model_server.service import Service
from serving.tf_serving.model_config import ModelConfig


class InProcessTransport:
    """Carries the calls of a ``ModelClient`` to a service in threads of this process."""

    def __init__(self, service: Service, max_threads: int) -> None:
        self._handlers: dict[str, Any] = service.handlers
        self._threads = ThreadPoolExecutor(max_threads, "model")

    async def call(self, method: str, request: Message, timeout_s: float) -> bytes:
        """Returns the answer of a method. Raises grpc.aio.AioRpcError."""
        waiting = threading.Event()
        waiting.set()
        context = _Context(waiting.is_set)
        work = partial(self._handlers[method].unary_unary, request, context)
        try:
            async with asyncio.timeout(timeout_s):
                return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        except TimeoutError:
            context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")
        finally:
            waiting.clear()

    async def close(self) -> None:
        """Waits for the calls under way."""
        await asyncio.to_thread(self._threads.shutdown)


@dataclass
class _Context:
    """What the service uses of a call, as gRPC's ServicerContext."""

    is_active: Callable[[], bool]

    def abort(self, code: grpc.StatusCode, details: str) -> NoReturn:
        raise grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), details)


@contextmanager
def running_models(models: tuple[ModelConfig, ...]) -> Iterator[InProcessTransport]:
    """Yields a transport to the models immediately, and loads the models in a thread.

    If a model cannot be loaded, the thread sends SIGTERM to this process, and the end of the block raises UserError.
    """
    options = ServerOptions(models, max_num_load_retries=1, load_retry_interval_seconds=1.0)
    manager, stopping = Manager(options), threading.Event()
    failures: list[ServingError] = []

    def load() -> None:
        try:
            manager.configure(models, stopping)
        except ServingError as error:
            failures.append(error)
            os.kill(os.getpid(), signal.SIGTERM)

    loading = threading.Thread(target=load)
    try:
        loading.start()  # Its signal may come before this returns.
        yield InProcessTransport(Service(manager), options.grpc_max_threads)
    finally:
        stopping.set()
        if loading.is_alive():
            loading.join()
        manager.stop()
        if failures:
            raise UserError(f"{failures[0].message}. {START_AGAIN}")
