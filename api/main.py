"""The gateway as a process: binds its socket, serves until it is told to stop, and drains."""

import asyncio
import gc
import socket
import sys
from types import FrameType
from typing import cast

import uvicorn
from fastapi import FastAPI

from api.app import create_app
from api.middleware.connections import ConnectionLimits, allow_connections, check_connections
from api.middleware.protocol import Protocol, protocol
from api.routes.health import Lifecycle, unready_models
from api.settings import Settings, SettingsError, load_settings
from api.state import KEY
from api.telemetry import logs
from api.telemetry.metrics import Metrics

_READY_POLL_S = 0.1
_SEND_BUFFER_BYTES = 256 * 2**10
"""What the system may hold of each answer, which is this process's memory too: left to itself it is up to 4 MB."""
_YOUNG_OBJECTS = 10_000
"""Made before Python looks for unreachable ones among them: with its 700, that takes a tenth of the time under load."""
_FAILED = 1
_WRONG_SETTINGS = 2


class _Server(uvicorn.Server):
    """Uvicorn with an ordered shutdown: unready at the signal, then a pause, then draining.

    The pause is for load balancers, which go on sending for a moment after readiness is gone
    (https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#pod-termination-flow).
    """

    def __init__(
        self, config: uvicorn.Config, app: FastAPI, limits: ConnectionLimits, settings: Settings, url: str
    ) -> None:
        super().__init__(config)
        self._limits = limits
        self._metrics: Metrics = app.state.metrics
        self._lifecycle: Lifecycle = app.state.lifecycle
        self._settings = settings
        self._url = url
        self._announcing: asyncio.Task[None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.should_exit:
            return
        self._loop = asyncio.get_running_loop()
        # What is there now stays. Looked through again and again, it would stop all requests for 50 ms under load.
        gc.collect()
        gc.freeze()
        gc.set_threshold(_YOUNG_OBJECTS)
        print(f"digitgan gateway listens on {self._url}", flush=True)
        self._announcing = asyncio.create_task(self._announce_ready())

    async def on_tick(self, counter: int) -> bool:
        connections = cast("set[Protocol]", self.server_state.connections)
        self._metrics.connections.set(len(connections))
        check_connections(connections, self._loop.time(), self._limits)
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if self._announcing:
            self._announcing.cancel()
        await super().shutdown(sockets)

    async def _announce_ready(self) -> None:
        inference, timeout_s = self.lifespan.state[KEY].inference, self._settings.ready_timeout_s
        while await unready_models(inference, self._lifecycle, timeout_s):  # noqa: ASYNC110 - another process's state
            await asyncio.sleep(_READY_POLL_S)
        print(f"Ready: the models are loaded. Try: curl -o 7.png {self._url}/digits/7.png", flush=True)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._lifecycle.draining or not self.started:  # a second signal doesn't wait
            self.should_exit = True
            self.force_exit = self._lifecycle.draining
            return
        self._lifecycle.draining = True
        self._loop.call_soon_threadsafe(self._loop.call_later, self._settings.shutdown_delay_s, self._stop)

    def _stop(self) -> None:
        self.should_exit = True


def run(settings: Settings) -> int:
    """Serves until SIGTERM or SIGINT and returns the exit status: 0, or 1 if it couldn't start.

    Prints to stdout the URL it listens on as soon as it answers, and a line that begins with "Ready" when the models
    are there too; problems go to stderr.
    """
    try:
        listener = _bind(settings.host, settings.port)
    except OSError as error:
        print(f"cannot listen on {settings.host}:{settings.port}: {error.strerror or error}", file=sys.stderr)
        return _FAILED
    logs.configure(settings.log_level, settings.log_format)
    with listener:
        app = create_app(settings)
        limits = ConnectionLimits(
            allow_connections(settings.max_connections),
            settings.header_timeout_s,
            settings.send_timeout_s,
            settings.max_waiting_bytes,
        )
        config = uvicorn.Config(
            app,
            loop="uvloop",
            http=protocol(limits, app.state.admission, app.state.metrics, refuses_early=settings.refuses_early),
            ws="none",
            lifespan="on",
            log_config=None,
            log_level=settings.log_level,
            access_log=False,  # the app logs its requests itself
            server_header=False,
            timeout_keep_alive=settings.keep_alive_s,
            timeout_graceful_shutdown=settings.shutdown_timeout_s,
        )
        url = _url(settings.host, listener)
        server = _Server(config, app, limits, settings, url)
        server.run(sockets=[listener])
    return 0 if server.started else _FAILED


def _bind(host: str, port: int) -> socket.socket:
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)  # its connections inherit it
        listener.bind(address)
    except OSError:
        listener.close()
        raise
    return listener


def _url(host: str, listener: socket.socket) -> str:
    name = f"[{host}]" if ":" in host else host
    return f"http://{name}:{listener.getsockname()[1]}"


def main() -> int:
    """Runs the gateway with the settings in the environment."""
    try:
        settings = load_settings()
    except SettingsError as error:
        print(error, file=sys.stderr)
        return _WRONG_SETTINGS
    return run(settings)


if __name__ == "__main__":
    sys.exit(main())
