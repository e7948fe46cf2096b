"""The gateway as a process: binds its socket, serves until a signal stops it, and drains."""

import asyncio
import gc
import math
import resource
import socket
import sys
import time
from collections.abc import Sequence
from types import FrameType
from typing import cast

import uvicorn

from api.app import create_app
from api.middleware.connection import SPARE_CONNECTIONS, Connection, check_connections
from api.routes.status import unready_models
from api.settings import Settings, load_settings
from api.state import KEY, GatewayState
from api.telemetry import logs
from serving.errors import UserError
from serving.tf_serving.client import Transport

_READY_POLL_S = 0.1
_SEND_BUFFER_BYTES = 256 * 2**10  # for each answer, in this process's memory; the system's own are up to 4 MB
_YOUNG_OBJECTS = 10_000  # before a garbage collection: with Python's 700, it takes a tenth of the time under load
_SPARE_FILES = SPARE_CONNECTIONS + 128  # for all else: the model server, logs, uploads on disk


class _Server(uvicorn.Server):
    """Uvicorn with an ordered shutdown: unready at the signal, then a pause, then draining.

    The pause is for load balancers, which go on sending for a moment after readiness is gone
    (https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#pod-termination-flow).
    """

    def __init__(self, config: uvicorn.Config, url: str, arrived: Sequence[int]) -> None:
        super().__init__(config)
        self._url = url
        self._arrived = arrived
        self._exit_at = math.inf

    @property
    def _state(self) -> GatewayState:
        return cast(GatewayState, self.lifespan.state[KEY])

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.should_exit |= bool(self._arrived)  # before uvicorn set its own handlers of signals

    async def main_loop(self) -> None:
        # What is there now stays. Looked through again and again, it would stop all requests for 50 ms under load.
        gc.collect()
        gc.freeze()
        gc.set_threshold(_YOUNG_OBJECTS)
        print(f"digitgan gateway listens on {self._url}", flush=True)
        announcing = asyncio.create_task(self._announce_ready())
        await super().main_loop()
        announcing.cancel()

    async def on_tick(self, counter: int) -> bool:
        connections = cast("set[Connection]", self.server_state.connections)
        self._state.metrics.connections.set(len(connections))
        check_connections(connections, self._state.settings.max_waiting_bytes)
        self.should_exit |= time.monotonic() >= self._exit_at
        return await super().on_tick(counter)

    async def _announce_ready(self) -> None:
        while await unready_models(self._state):  # noqa: ASYNC110 - another process's
            await asyncio.sleep(_READY_POLL_S)
        print(f"Ready: the models are loaded. Try: curl -o 7.png {self._url}/digits/7.png", flush=True)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if not self.started:
            self.should_exit = True
        elif self._state.draining:  # a second signal doesn't wait
            self.should_exit = self.force_exit = True
        else:
            self._state.draining = True
            self._exit_at = time.monotonic() + self._state.settings.shutdown_delay_s


def run(settings: Settings, transport: Transport | None = None, arrived: Sequence[int] = ()) -> int:
    """Serves until SIGTERM or SIGINT. Returns the exit status: 0, or 1 if it couldn't start.

    Prints to stdout its URL as soon as it answers, and a line that begins with "Ready" when the models are there too.
    ``transport``: as in ``create_app``. ``arrived`` gets the signals that arrive before it serves: one ends it.
    """
    ipv6 = ":" in settings.host
    family = socket.AF_INET6 if ipv6 else socket.AF_INET
    try:
        listener = socket.create_server((settings.host, settings.port), family=family, dualstack_ipv6=ipv6)
    except OSError as error:
        print(f"cannot listen on {settings.host}:{settings.port}: {error.strerror or error}", file=sys.stderr)
        return 1
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)  # its connections inherit it
    logs.configure(settings.log_level, settings.log_format)
    name = f"[{settings.host}]" if ipv6 else settings.host
    with listener:
        connections = allow_connections(settings.max_connections)
        config = uvicorn.Config(
            create_app(settings.model_copy(update={"max_connections": connections}), transport),
            loop="uvloop",
            http=Connection,
            ws="none",
            lifespan="on",
            log_config=None,
            log_level=settings.log_level,
            access_log=False,  # the app logs its requests itself
            server_header=False,
            timeout_keep_alive=settings.keep_alive_s,
            timeout_graceful_shutdown=settings.shutdown_timeout_s,
        )
        server = _Server(config, f"http://{name}:{listener.getsockname()[1]}", arrived)
        server.run(sockets=[listener])
    return 0 if server.started else 1


def allow_connections(wanted: int) -> int:
    """Raises the limit of open files for ``wanted`` connections. Returns how many the system allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + _SPARE_FILES
    if soft < needed:
        soft = min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return max(1, min(wanted, soft - _SPARE_FILES))


def main() -> int:
    """Runs the gateway with the settings in the environment. Returns what ``run`` returns; 2 for a wrong setting."""
    try:
        settings = load_settings()
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return run(settings)


if __name__ == "__main__":
    sys.exit(main())
