"""The embedded model server: start, stop, and running as a program."""

import logging
import re
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from types import FrameType, TracebackType
from typing import Final, Self

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from serving.model_server.errors import ServingError
from serving.model_server.manager import Manager
from serving.model_server.options import ServerOptions
from serving.model_server.service import Service
from serving.tf_serving import model_config

SIGNAL_CHECK_SECONDS: Final = 0.5
"""How long a signal waits for its handler, at most."""

_log = logging.getLogger(__name__)


class ServerStartError(Exception):
    """The server can't start: a model can't be loaded, or an address can't be listened on. The message says
    which.
    """


class ModelServer:
    """A model server in this process: ``with ModelServer(options) as server: … server.address``."""

    def __init__(self, options: ServerOptions) -> None:
        self.options = options
        self.address: str | None = None
        """Where it listens, as ``ServerOptions.address``; None before it does."""
        self._stopping = threading.Event()
        self._started = ExitStack()
        self._health = health.HealthServicer()

    def start(self) -> None:
        """Loads the models, then listens.

        Waits for models that aren't on disk yet, until a stop is requested. Raises ServerStartError, and
        leaves nothing running, when a model or an address makes it impossible.
        """
        manager = Manager(self.options)
        self._started.callback(manager.stop)
        try:
            manager.configure(self.options.models, self._stopping)
            if not self._stopping.is_set():
                self._listen(manager)
        except ServingError as error:
            self.stop()
            raise ServerStartError(
                f"{error.message}. Remove that version, or publish it again under a new number; then start again"
            ) from error
        except RuntimeError as error:  # gRPC's word for an address that is taken
            self.stop()
            raise ServerStartError(
                f"cannot listen on {self.options.address}: it is in use, or this machine does not have it. Choose "
                "another port, host or socket"
            ) from error

    def request_stop(self) -> None:
        """Ends ``start`` where it waits for models, and ``wait``."""
        self._stopping.set()

    def wait(self) -> None:
        """Waits until a stop is requested."""
        # The system may deliver a signal to any thread, which does not wake this one; Python handles it in this one.
        while not self._stopping.wait(SIGNAL_CHECK_SECONDS):
            pass

    def stop(self) -> None:
        """Accepts no more calls, gives those in progress the grace period, and frees everything."""
        self._stopping.set()
        self._health.enter_graceful_shutdown()
        self._started.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _listen(self, manager: Manager) -> None:
        options = self.options
        if options.model_config_file and options.model_config_file_poll_wait_seconds > 0:
            following = threading.Thread(target=self._follow, args=(manager, options.model_config_file))
            following.start()
            self._started.callback(following.join)
        server = grpc.server(
            self._started.enter_context(ThreadPoolExecutor(options.grpc_max_threads, thread_name_prefix="grpc")),
            maximum_concurrent_rpcs=options.grpc_max_threads,
            options=[
                ("grpc.max_receive_message_length", -1),
                ("grpc.max_send_message_length", -1),
                ("grpc.so_reuseport", 0),  # a second server on this port is told so
                # Clients that ask every few seconds whether the server is alive are no attackers.
                ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
                *options.grpc_channel_arguments,
            ],
        )
        self._started.callback(lambda: server.stop(options.shutdown_grace_seconds).wait())
        server.add_generic_rpc_handlers((Service(manager),))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        self._health.set("", health_pb2.HealthCheckResponse.SERVING)
        port = server.add_insecure_port(options.address)
        server.start()
        self.address = re.sub(":0$", f":{port}", options.address)

    def _follow(self, manager: Manager, path: Path) -> None:
        """Serves what the file says, at each poll. A file that can't be followed changes nothing."""
        refused = ""
        while not self._stopping.wait(self.options.model_config_file_poll_wait_seconds):
            try:
                manager.configure(model_config.read(path), self._stopping)
                refused = ""
            except (model_config.ConfigError, ServingError) as error:
                if refused != str(error):
                    refused = str(error)
                    _log.error("%s can't be followed: %s", path, error)


def serve(options: ServerOptions, ready: Callable[[str], None] = lambda address: None) -> int:
    """Runs a server until SIGTERM or SIGINT, in the main thread; returns the exit status.

    That is 0 after a signal, once the calls in progress are answered, and 1 when the server can't start;
    the log says why. ``ready`` is called with the address when it listens.
    """
    server = ModelServer(options)

    def on_signal(number: int, frame: FrameType | None) -> None:
        # In a thread: the main thread may hold the very lock that a stop request needs.
        threading.Thread(target=server.request_stop).start()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)
    try:
        server.start()
        if server.address:
            ready(server.address)
        server.wait()
    except ServerStartError as error:
        _log.error("%s", error)
        return 1
    finally:
        server.stop()
    return 0
