"""What the examples on pages print: curl commands, without curl, and Python."""

import io
import shlex
from contextlib import redirect_stdout
from pathlib import Path

import httpx


def curl(command: str, client: httpx.Client, directory: Path) -> str:
    """Does what a curl command does, and returns what it would print. ``client`` is of the service that pages call
    127.0.0.1:8000.
    """
    words = iter(shlex.split(command)[1:])
    url, output, headers, body, files = "", None, {}, None, []
    for word in words:
        match word:
            case "-s":
                pass
            case "-o":
                output = directory / next(words)
            case "-H":
                name, _, value = next(words).partition(": ")
                headers[name] = value
            case "-d":
                body = next(words).encode()
            case "-F":
                name, _, path = next(words).partition("=@")
                files.append((name, (path, (directory / path).read_bytes())))
            case "--data-binary":
                body = (directory / next(words).removeprefix("@")).read_bytes()
            case _:
                url = word.removeprefix("http://127.0.0.1:8000")
    method = "GET" if body is None and not files else "POST"
    answer = client.request(method, url, headers=headers, content=body, files=files or None)
    assert answer.status_code == 200, answer.text
    if output is None:
        return answer.text
    output.write_bytes(answer.content)
    return ""


def printed_by(code: str, names: dict[str, object] | None = None) -> str:
    """Runs Python code, with the names of the code before it, and returns what it prints."""
    printed = io.StringIO()
    with redirect_stdout(printed):
        exec(code, {} if names is None else names)
    return printed.getvalue()
