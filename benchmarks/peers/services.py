"""The services under comparison: how each is started, called, measured, and stopped."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
from rich.console import Console

from benchmarks.peers.environments import HERE, onnx_generator, python_of
from digitgan.processes import TENSORFLOW_MODEL_SERVER
from tests.support.processes import free_port, resident_bytes

OURS: Final = "digitgan"
HAS_TENSORFLOW_SERVING: Final = shutil.which(TENSORFLOW_MODEL_SERVER) is not None
START_S: Final = 120.0
STOP_S: Final = 20.0

_MARK: Final = "DIGITGAN_BENCHMARK_RUN"
"""In the environment of every process that a service starts, wherever that puts itself, so that all can be found."""


@dataclass(frozen=True)
class Service:
    """One service. ``command`` has the arguments of a Python; "{port}" stands for the port."""

    name: str
    command: str
    path: str = "/generate"
    environment: tuple[tuple[str, str], ...] = ()

    @property
    def is_ours(self) -> bool:
        return self.name.startswith(OURS)

    def url(self, port: int) -> str:
        return f"http://127.0.0.1:{port}{self.path}"

    def body(self, seeds: Sequence[int]) -> bytes:
        """Returns the JSON that asks for these seeds' digits."""
        if self.name == "mlserver":
            tensor = {"name": "seeds", "shape": [len(seeds), 1], "datatype": "INT64", "data": list(seeds)}
            return json.dumps({"inputs": [tensor]}).encode()
        return json.dumps({"seeds": list(seeds)}).encode()

    def pngs(self, answer: Any) -> list[str]:
        """Returns the PNGs, in base64, in an answer."""
        if self.is_ours:
            return [image["png"] for image in answer["images"]]
        match self.name:
            case "mlserver":
                return list(answer["outputs"][0]["data"])
            case "bentoml":
                return list(answer)
            case _:
                return list(answer["images"])


_WITHOUT_TENSORFLOW_SERVING: Final = os.pathsep.join(
    directory
    for directory in os.environ["PATH"].split(os.pathsep)
    if not (Path(directory) / TENSORFLOW_MODEL_SERVER).exists()
)
"""The PATH with which ``digitgan up`` takes the embedded model server."""
SERVICES: Final = (
    Service(OURS, "-m digitgan up --port {port}", environment=(("PATH", _WITHOUT_TENSORFLOW_SERVING),)),
    *([Service(f"{OURS} on TensorFlow Serving", "-m digitgan up --port {port}")] * HAS_TENSORFLOW_SERVING),
    Service("fastapi", "-m uvicorn service:app --port {port} --log-level warning --no-access-log"),
    Service(
        "bentoml",
        "-m bentoml serve --quiet --do-not-track --host 127.0.0.1 -p {port} service:Digits",
        environment=(("BENTOML_DO_NOT_TRACK", "True"),),
    ),
    Service("litserve", "service.py"),
    Service(
        "mlserver",
        "-c 'from mlserver.cli import main; main()' start .",
        path="/v2/models/generator/infer",
        environment=(
            ("MLSERVER_HOST", "127.0.0.1"),
            ("MLSERVER_HTTP_PORT", "{port}"),
            ("MLSERVER_GRPC_PORT", "{other}"),
            ("MLSERVER_METRICS_PORT", "{third}"),
            ("MLSERVER_PARALLEL_WORKERS", "0"),
            ("MLSERVER_DEBUG", "false"),
        ),
    ),
)


@dataclass
class Running:
    """A service that answers. ``start_s``: from the start of its process to its first digit."""

    service: Service
    port: int
    mark: str
    start_s: float = 0.0

    def ask(self, body: bytes) -> Any:
        response = httpx.post(
            self.service.url(self.port), content=body, headers={"Content-Type": "application/json"}, timeout=60
        )
        return response.raise_for_status().json()

    def memory_mb(self) -> float:
        found = 0
        for pid in marked(self.mark):
            with suppress(OSError):  # It may have ended.
                found += resident_bytes(pid)
        return found / 1e6


@contextmanager
def running(service: Service, console: Console, log: Path) -> Iterator[Running]:
    """Starts a service, gives it once it has made a digit, and ends every process that it has started."""
    port, other, third = free_port(), free_port(), free_port()
    mark = uuid.uuid4().hex
    numbers = {"port": str(port), "other": str(other), "third": str(third)}
    environment = os.environ | {_MARK: mark, "PORT": str(port), "HOST": "127.0.0.1"}
    environment |= {name: value.format(**numbers) for name, value in service.environment}
    if service.is_ours:
        python, directory = Path(sys.executable), Path.cwd()
    else:
        python, directory = python_of(service.name, console), HERE / service.name
        environment |= {"GENERATOR_ONNX": str(onnx_generator(console)), "PYTHONPATH": str(HERE / "shared")}
        environment["PATH"] = f"{python.parent}:{environment['PATH']}"
    command = [str(python), *shlex.split(service.command.format(**numbers))]
    with log.open("wb") as output:
        start = time.perf_counter()
        process = subprocess.Popen(
            command, cwd=directory, env=environment, stdout=output, stderr=output, start_new_session=True
        )
        try:
            under_test = Running(service, port, mark)
            _wait_for_a_digit(under_test, process, log)
            under_test.start_s = time.perf_counter() - start
            yield under_test
        finally:
            _end(process, mark)


def _wait_for_a_digit(under_test: Running, process: "subprocess.Popen[bytes]", log: Path) -> None:
    name, deadline = under_test.service.name, time.monotonic() + START_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"{name} ended with {process.returncode}; see {log}")
        with suppress(httpx.HTTPError):
            under_test.ask(under_test.service.body([7]))
            return
        time.sleep(0.02)
    raise RuntimeError(f"{name} has made no digit in {START_S:.0f} s; see {log}")


def _end(process: "subprocess.Popen[bytes]", mark: str) -> None:
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(STOP_S)
    while left := marked(mark):
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.2)
    process.wait()


def marked(mark: str) -> list[int]:
    """Returns the processes with this mark in their environment."""
    wanted = f"{_MARK}={mark}".encode()
    found = []
    for directory in Path("/proc").iterdir():
        if directory.name.isdecimal():
            try:
                if wanted in (directory / "environ").read_bytes().split(b"\0"):
                    found.append(int(directory.name))
            except OSError:  # it has ended, or isn't ours to look at
                continue
    return sorted(found)
