"""``digitgan up``: everything at once, as the README promises, and to an orderly end."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.commands import digitgan, stopped_after
from tests.support.processes import EMBEDDED, PROGRAM, ServerProcess, digitgan_up, wait_until


def children(process: subprocess.Popen[str]) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


@pytest.fixture
def called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Puts the embedded server on the PATH as ``tensorflow_model_server``. Returns the file that gets its flags."""
    program, called = tmp_path / "tensorflow_model_server", tmp_path / "called"
    program.write_text(
        f"#!{sys.executable}\nimport pathlib, sys\nfrom digitgan.cli import main\n"
        f"pathlib.Path({str(called)!r}).write_text(' '.join(sys.argv[1:]))\nsys.argv.insert(1, 'serve')\nmain()\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    return called


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP], ids=["Ctrl-C", "the terminal closes"])
def test_the_pretrained_model_answers_and_ends_cleanly(number: int) -> None:
    with digitgan_up() as (server, client):
        assert client.get("/digits/7.png").status_code == 200
        assert bool(children(server.process)) == (PROGRAM != EMBEDDED)  # which runs in the gateway's process
        assert server.stop(number) == 0


def test_the_model_server_on_the_path_is_taken(called: Path) -> None:
    with digitgan_up() as (server, client):
        assert client.get("/digits/7.png").status_code == 200
        assert "--enable_batching" in called.read_text().split()
        # Cores are shared out between sessions first; Ctrl-C goes to process groups.
        (model_server,) = children(server.process)
        assert os.getsid(model_server) == os.getsid(server.process.pid)
        assert os.getpgid(model_server) != os.getpgid(server.process.pid)
        assert server.stop(signal.SIGINT) == 0
        assert not Path(f"/proc/{model_server}").exists()


@pytest.mark.usefixtures("called")
def test_a_model_server_that_dies_takes_the_gateway_with_it_and_says_so() -> None:
    with digitgan_up() as (server, _):
        (model_server,) = children(server.process)
        os.kill(model_server, signal.SIGKILL)
        assert server.wait() == 2


def test_a_model_that_cannot_be_loaded_ends_everything_and_is_named(tmp_path: Path) -> None:
    (tmp_path / "generator" / "1").mkdir(parents=True)
    (tmp_path / "generator" / "1" / "saved_model.pb").write_bytes(b"no graph")
    done = digitgan("up", "--port", 0, "--models", tmp_path, status=2)
    last = done.stderr.splitlines()[-1]
    if PROGRAM == EMBEDDED:
        assert re.search(r"^digitgan: model generator version 1 cannot be loaded: (DATA_LOSS|OUT_OF_RANGE): .+", last)
        assert "Remove that version, or publish it again under a new number; then start again" in last
    else:
        assert last.startswith("digitgan: the model server ended by itself")
    assert "Traceback" not in done.stderr


@pytest.mark.usefixtures("called")
def test_sigterm_while_it_starts_ends_the_model_server_too() -> None:
    with ServerProcess("-m", "digitgan", "up", "--port", "0", ready="Loading") as server:
        wait_until(lambda: children(server.process))
        started = children(server.process)
        server.process.terminate()
        assert server.wait() in (0, 128 + signal.SIGTERM)
    assert not any(Path(f"/proc/{pid}").exists() for pid in started)


@pytest.mark.parametrize(
    ("command", "function"),
    [
        ("serve --port 0", "dataclasses.dataclass"),  # Modules call it while they are imported.
        ("gateway --port 0", "fastapi.FastAPI.include_router"),
        ("up --port 0", "fastapi.FastAPI.include_router"),
        ("generate --local --seed 7", "fastapi.FastAPI.include_router"),
    ],
)
def test_sigterm_counts_where_what_is_imported_swallows_exceptions(command: str, function: str) -> None:
    done = stopped_after(function, signal.SIGTERM, *command.split(), lost=True)
    assert done.returncode in (0, 128 + signal.SIGTERM), done.stderr
    assert "seed 7" not in done.stdout
