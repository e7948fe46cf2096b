"""The client for ordinary code: ``digitgan.client.asynchronous`` on an event loop in a thread of its own."""

import asyncio
import threading
import weakref
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from contextlib import AbstractContextManager
from functools import wraps
from typing import Any, Concatenate, Final, ParamSpec, TypeVar

from digitgan.client.asynchronous import AsyncClient

_P = ParamSpec("_P")
_T = TypeVar("_T")

CLEAN_UP_S: Final = 5.0


def _blocking(
    method: Callable[Concatenate[AsyncClient, _P], Coroutine[Any, Any, _T]],
) -> Callable[Concatenate["Client", _P], _T]:
    @wraps(method)
    def call(client: "Client", /, *arguments: _P.args, **named: _P.kwargs) -> _T:
        return client._wait(method(client._client, *arguments, **named))

    return call


def _iterating(
    method: Callable[Concatenate[AsyncClient, _P], AsyncGenerator[_T, None]],
) -> Callable[Concatenate["Client", _P], Generator[_T, None, None]]:
    @wraps(method)
    def call(client: "Client", /, *arguments: _P.args, **named: _P.kwargs) -> Generator[_T, None, None]:
        parts = method(client._client, *arguments, **named)

        async def next_part() -> _T | None:
            return await anext(parts, None)

        try:
            while (part := client._wait(next_part())) is not None:
                yield part
        finally:
            if threading.current_thread() is client._thread:  # The garbage collector runs in any thread.
                asyncio.run_coroutine_threadsafe(parts.aclose(), client._loop)
            else:
                client._wait(parts.aclose())

    return call


class Client(AbstractContextManager["Client"]):
    """A gateway, as Python sees it: arrays in, arrays out.

    Connections are kept and reused, so make one client and keep it; threads may share it. Use it as a context manager,
    or ``close`` it. It works where an event loop runs already, as in a notebook.

        with Client() as client:
            digits = client.generate(1000, labels=True)
            print(digits.pixels.shape, digits.labels[:10])

    All methods raise DigitganError (``digitgan.client.errors`` shows its kinds); ValueError for what can't be sent.
    """

    def __init__(
        self, url: str | None = None, *, api_key: str | None = None, timeout_s: float = 60.0, retry_s: float = 10.0
    ) -> None:
        """
        Args:
            url: the gateway's address. Default: the environment's DIGITGAN_URL, or else http://127.0.0.1:8000.
            api_key: where the gateway wants one. Default: the environment's DIGITGAN_API_KEY, or else none.
            timeout_s: seconds to connect, and to wait for the next piece of an answer. The gateway gets this
                time too, and makes nothing that would come later.
            retry_s: seconds that the pauses before retries may take in one call. Calls are repeated when the
                connection fails, and after 503 and 429 with the pause of ``Retry-After``. 0: never.
        """
        self._client = AsyncClient(url, api_key=api_key, timeout_s=timeout_s, retry_s=retry_s)
        self.url = self._client.url
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=_run, args=(self._loop,), name="digitgan-client", daemon=True)
        self._thread.start()
        self._stop = weakref.finalize(self, self._loop.call_soon_threadsafe, self._loop.stop)

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections."""
        if self._stop.alive:
            self._wait(self._client.close())
            self._stop()
            self._thread.join()

    generate = _blocking(AsyncClient.generate)
    save = _blocking(AsyncClient.save)
    score = _blocking(AsyncClient.score)
    dataset = _iterating(AsyncClient.dataset)
    models = _blocking(AsyncClient.models)
    ready = _blocking(AsyncClient.ready)

    def _wait(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Returns the result. An exception in this thread, such as Ctrl-C, cancels the work, and lets it clean up."""
        finished = threading.Event()
        tasks: list[asyncio.Task[_T]] = []

        def start() -> None:
            tasks.append(self._loop.create_task(work))
            tasks[0].add_done_callback(lambda _: finished.set())

        def cancel() -> None:
            for task in tasks:
                task.cancel()

        try:
            self._loop.call_soon_threadsafe(start)
            finished.wait()
        except BaseException:
            self._loop.call_soon_threadsafe(cancel)  # The loop has called start before, whenever the exception came.
            finished.wait(CLEAN_UP_S)
            raise
        return tasks[0].result()


def _run(loop: asyncio.AbstractEventLoop) -> None:
    try:
        loop.run_forever()
    finally:
        loop.close()
