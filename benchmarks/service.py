"""A running ``digitgan up`` to measure or to test."""

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

STOP_S = 90.0


@contextmanager
def digitgan_up(*arguments: str | Path) -> Iterator[tuple[subprocess.Popen[str], httpx.Client]]:
    """Starts the service on a free port, and gives its process and a client once the models are loaded.

    Raises RuntimeError if it ends before that.
    """
    command = [sys.executable, "-m", "digitgan", "up", "--port", "0", *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            with httpx.Client(base_url=_url_when_ready(process), timeout=STOP_S) as client:
                yield process, client
        finally:
            process.terminate()
            process.wait(STOP_S)


@contextmanager
def service(url: str | None, *arguments: str | Path) -> Iterator[httpx.Client]:
    """Gives a client of the gateway at ``url``, or of one that runs, with ``arguments``, as long as the block."""
    if url is None:
        with digitgan_up(*arguments) as (_, http):
            yield http
    else:
        with httpx.Client(base_url=url, timeout=STOP_S) as http:
            yield http


def _url_when_ready(process: subprocess.Popen[str]) -> str:
    url = ""
    assert process.stdout
    for line in process.stdout:
        if found := re.search(r"listens on (http://\S+)", line):
            url = found[1]
        if line.startswith("Ready") and url:
            return url
    raise RuntimeError("digitgan up ended before it was ready; see above for why")
