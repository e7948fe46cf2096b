"""A whole service on a free port, for as long as a block needs it."""

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from digitgan.child_process import STOP_SECONDS, child_process
from digitgan.errors import require
from serving.errors import UserError


@contextmanager
def local_service(models: Path | None = None) -> Iterator[str]:
    """Gives the URL of a service that is ready: ``digitgan up`` in a child process.

    It ends with the block. If this process is killed, the standard input of the service ends, and it stops too.

    Args:
        models: the base directory; None for the models in the package.

    Raises:
        UserError: a part isn't installed, or the service ended before it was ready.
    """
    require("gateway")
    command = [sys.executable, "-P", "-m", "digitgan", "up", "--host", "127.0.0.1", "--port", "0", "--until-eof"]
    # Without API keys: only this process knows the address.
    environment = {name: value for name, value in os.environ.items() if name != "DIGITGAN_API_KEYS"}
    urls: list[str] = []
    ready = threading.Event()

    def look(line: str) -> None:
        urls.extend(re.findall(r"listens on (http://\S+)", line))
        if line.startswith("Ready"):
            ready.set()

    with child_process(
        command + (["--models", str(models)] if models else []),
        look,
        ready.set,
        stop_seconds=3 * STOP_SECONDS,  # it has a child of its own to end
        env=environment,
        stdin=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C is this process's to handle
    ) as child:
        ready.wait()
        if child.ended:
            raise UserError("the service did not start:\n" + "".join(child.last_lines).rstrip())
        yield urls[0]
