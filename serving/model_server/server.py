"""The embedded model server: in this process, and as a program."""

import _thread
import logging
import re
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import Final

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from serving.errors import START_AGAIN
from serving.model_server.errors import ServingError
from serving.model_server.manager import Manager
from serving.model_server.options import ServerOptions
from serving.model_server.service import Service
from serving.tf_serving import model_config

SIGNAL_CHECK_SECONDS: Final = 0.5
"""How long a signal waits for its handler, at most."""

_log = logging.getLogger(__name__)


class ServerStartError(Exception):
    """The server can't start: the message names the model or the address at fault."""


@contextmanager
def running(options: ServerOptions, stopping: threading.Event) -> Iterator[str]:
    """Loads the models, then listens, and gives the address, as ``ServerOptions.address``.

    Waits for models that aren't on disk yet, until ``stopping`` is set: then the address is "". At the end of the
    block it accepts no more calls, gives those in progress the grace period, and frees everything.

    Raises ServerStartError.
    """
    manager = Manager(options)
    with ExitStack() as started:
        started.callback(manager.stop)
        try:
            manager.configure(options.models, stopping)
            address = "" if stopping.is_set() else _listen(options, manager, started, stopping)
        except ServingError as error:
            raise ServerStartError(f"{error.message}. {START_AGAIN}") from error
        except RuntimeError as error:  # gRPC's word for an address that is taken
            raise ServerStartError(
                f"cannot listen on {options.address}: it is in use, or this machine does not have it. Choose "
                "another port, host or socket"
            ) from error
        yield address


def _listen(options: ServerOptions, manager: Manager, started: ExitStack, stopping: threading.Event) -> str:
    """Starts gRPC's server on the models of ``manager``, until ``started`` is closed. Returns the address."""
    if options.model_config_file and options.model_config_file_poll_wait_seconds > 0:
        poll_s = options.model_config_file_poll_wait_seconds
        following = threading.Thread(target=_follow, args=(manager, options.model_config_file, poll_s, stopping))
        following.start()
        started.callback(following.join)
    server = grpc.server(
        started.enter_context(ThreadPoolExecutor(options.grpc_max_threads, thread_name_prefix="grpc")),
        maximum_concurrent_rpcs=options.grpc_max_threads,
        options=[
            ("grpc.max_receive_message_length", -1),
            ("grpc.max_send_message_length", -1),
            ("grpc.so_reuseport", 0),  # A second server on this port is an error.
            # Clients that ask every few seconds whether the server is alive are no attackers.
            ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
            *options.grpc_channel_arguments,
        ],
    )
    started.callback(lambda: server.stop(options.shutdown_grace_seconds).wait())
    for method, handler in Service(manager).handlers.items():
        _, service, name = method.split("/")
        server.add_registered_method_handlers(service, {name: handler})
    servicer = health.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    servicer.set("", health_pb2.HealthCheckResponse.SERVING)
    started.callback(servicer.enter_graceful_shutdown)
    started.callback(stopping.set)  # ends what waits in the manager for a model, so that the calls behind it end
    port = server.add_insecure_port(options.address)
    server.start()
    return re.sub(":0$", f":{port}", options.address)


def _follow(manager: Manager, path: Path, poll_s: float, stopping: threading.Event) -> None:
    """Serves what the file says, at each poll. A file that can't be followed changes nothing."""
    refused = ""
    while not stopping.wait(poll_s):
        try:
            manager.configure(model_config.read(path), stopping)
            refused = ""
        except (model_config.ConfigError, ServingError) as error:
            if refused != str(error):
                refused = str(error)
                _log.error("%s can't be followed: %s", path, error)


def serve(options: ServerOptions, ready: Callable[[str], None] = lambda address: None) -> int:
    """Runs a server until SIGTERM or SIGINT, in the main thread; calls ``ready`` with the address when it listens.

    Returns the exit status: 0 after a signal, once the calls in progress are answered, and 1, with an error in the log,
    if the server can't start.
    """
    stopping = threading.Event()

    def on_signal(number: int, frame: FrameType | None) -> None:
        # In a thread: this one may hold the very lock of the event, or one that threading.Thread waits for.
        _thread.start_new_thread(stopping.set, ())

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)
    try:
        with running(options, stopping) as address:
            if address:
                ready(address)
            # The system may deliver a signal to any thread, which does not wake this one, where Python handles it.
            while not stopping.wait(SIGNAL_CHECK_SECONDS):
                pass
    except ServerStartError as error:
        _log.error("%s", error)
        return 1
    return 0
