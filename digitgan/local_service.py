"""A whole service on a free port, for as long as this process needs it.

It runs ``digitgan up`` in a child process, which ends when its standard input does: so it ends with its parent, however
that ends.
"""

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from digitgan.errors import UserError, require

STOP_SECONDS: Final = 30.0
_LAST_LINES: Final = 8


@contextmanager
def local_service(models: Path | None = None) -> Iterator[str]:
    """Gives the URL of a service that is ready, and ends the service with the block.

    Args:
        models: the base directory; None for the models in the package.

    Raises:
        UserError: a part isn't installed, or the service ended before it was ready.
    """
    require("gateway", "fastapi", "uvicorn")
    command = [sys.executable, "-P", "-m", "digitgan.local_service", *([str(models)] if models else [])]
    # A session of its own: Ctrl-C is this process's to handle.
    child = subprocess.Popen(  # noqa: S603 - this very program
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert child.stdin
    assert child.stdout
    said: list[str] = []
    listening = threading.Thread(target=_read_errors, args=(child, said), daemon=True)
    listening.start()
    try:
        url = _url_when_ready(child)
        if url is None:
            child.wait(STOP_SECONDS)
            listening.join(STOP_SECONDS)
            raise UserError("the service did not start:\n" + "".join(said[-_LAST_LINES:]).rstrip())
        yield url
    finally:
        child.stdin.close()
        try:
            child.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        listening.join(STOP_SECONDS)
        child.stdout.close()


def _read_errors(child: "subprocess.Popen[str]", said: list[str]) -> None:
    assert child.stderr
    with child.stderr:
        said.extend(child.stderr)


def _url_when_ready(child: "subprocess.Popen[str]") -> str | None:
    assert child.stdout
    url = None
    for line in child.stdout:
        if found := re.search(r"listens on (http://\S+)", line):
            url = found[1]
        if line.startswith("Ready"):
            return url
    return None


def _end_with_parent() -> None:
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGTERM)


def _main() -> None:
    from digitgan.commands.serving import up

    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.environ.pop("DIGITGAN_API_KEYS", None)  # only the process that started it knows its address
    try:
        up(Path(sys.argv[1]) if len(sys.argv) > 1 else None, "127.0.0.1", 0)
    except UserError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    _main()
