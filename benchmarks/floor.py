"""How little can one digit for one client take over HTTP, gRPC and a second process, in Python?

    python -m benchmarks.floor

Three services under wrk, with one client, in turns: a FastAPI route that reads its JSON and answers with a constant;
the same with a call in between, by grpc.aio over a Unix socket, of a server in threads that answers with a constant
too; and digitgan. Beside them the model's own time for one digit. What digitgan takes beyond the second and the model
is its own.
"""

import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import Console

from benchmarks.marked import replace_between_marks
from benchmarks.peers.load import SCENARIOS, measure, require_wrk
from benchmarks.peers.services import OURS, SERVICES, Running
from benchmarks.service import digitgan_up
from serving.contract import GENERATOR, NOISE, SIGNATURE
from serving.model_server.saved_model import load
from serving.noise import noise_from_seeds
from serving.pretrained import MODELS_DIR

DOCS: Final = Path(__file__).parent.parent / "docs/performance.md"
BARE_HTTP, BARE_HOP, WHOLE, MODEL = "FastAPI alone", "FastAPI and grpc.aio", "digitgan", "the model alone"
WARM_UP_S: Final = 1
ANSWER: Final = b"x" * 600
"""About what a digit takes on its way, as a tensor or as base64 in JSON."""


def serve_echo(target: str) -> None:
    """Answers every call with a constant, over a Unix socket."""
    import grpc

    class Echo(grpc.GenericRpcHandler):
        def service(self, details: grpc.HandlerCallDetails) -> Any:
            return grpc.unary_unary_rpc_method_handler(lambda request, context: ANSWER)

    server = grpc.server(ThreadPoolExecutor(16))
    server.add_generic_rpc_handlers((Echo(),))
    server.add_insecure_port(target)
    server.start()
    print("ready", flush=True)
    server.wait_for_termination()


def serve_http(port: int, target: str) -> None:
    """Answers every request with a constant, after a call of the server at ``target`` if there is one."""
    import grpc
    import uvicorn
    from fastapi import FastAPI, Request, Response
    from pydantic import BaseModel

    class Body(BaseModel):
        seeds: list[int]

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
        async with grpc.aio.insecure_channel(target or "unix:/nobody") as channel:
            yield {"call": channel.unary_unary("/any/any") if target else None}

    app = FastAPI(lifespan=lifespan)

    @app.post("/generate")
    async def answer(body: Body, request: Request) -> Response:
        call = request.state.call
        return Response(await call(ANSWER, timeout=5) if call else ANSWER, media_type="application/json")

    uvicorn.run(app, port=port, log_level="error", access_log=False)


@contextmanager
def bare(target: str) -> Iterator[int]:
    """Runs one of the bare services, and gives its port."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = int(probe.getsockname()[1])
    echo = f"import benchmarks.floor as floor; floor.serve_echo({target!r})"
    http = f"import benchmarks.floor as floor; floor.serve_http({port}, {target!r})"
    processes = []
    try:
        if target:
            processes.append(subprocess.Popen([sys.executable, "-c", echo], stdout=subprocess.PIPE))
            assert processes[0].stdout
            processes[0].stdout.readline()
        processes.append(subprocess.Popen([sys.executable, "-c", http]))
        while True:
            with socket.socket() as client:
                if client.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        yield port
    finally:
        for process in processes:
            process.terminate()
            process.wait()
            if process.stdout:
                process.stdout.close()


@contextmanager
def service(name: str) -> Iterator[int]:
    """Runs a service, and gives its port."""
    if name == WHOLE:
        with digitgan_up() as (_, client):
            yield client.base_url.port or 0
    else:
        with (
            tempfile.TemporaryDirectory(prefix="digitgan-") as directory,
            bare(f"unix:{directory}/echo" if name == BARE_HOP else "") as port,
        ):
            yield port


def model_ms(seconds: int) -> float:
    """Returns the median time of one digit in the embedded model server's engine."""
    model = load(MODELS_DIR / GENERATOR / "1")
    noise, times = noise_from_seeds([7]), []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        model.run(SIGNATURE, {NOISE: noise})
        times.append(1000 * (time.perf_counter() - start))
    model.close()
    return statistics.median(times)


def main(
    rounds: Annotated[int, typer.Option(help="How often each service has its turn.", min=1)] = 6,
    seconds: Annotated[int, typer.Option(help="How long each is measured in a turn.", min=1)] = 2,
    write: Annotated[bool, typer.Option(help="Write the table into docs/ at the end.")] = True,
) -> None:
    """Measures what the parts take of one digit's way to one client."""
    console = Console()
    require_wrk()
    ours = next(one for one in SERVICES if one.name == OURS)
    taken: dict[str, list[float]] = {name: [] for name in (BARE_HTTP, BARE_HOP, MODEL, WHOLE)}
    for _ in range(rounds):
        for name in random.sample(list(taken), len(taken)):
            if name == MODEL:
                taken[name].append(model_ms(seconds))
                continue
            with service(name) as port:
                running = Running(ours, port, 0.0, "")
                measure(running, SCENARIOS[0], WARM_UP_S)
                taken[name].append(measure(running, SCENARIOS[0], seconds).p50_ms)
    rows = ["| one digit, one client | ms p50 (least–most) |", "| --- | --- |"]
    rows += [
        f"| {name} | {statistics.median(each):.2f} ({min(each):.2f}–{max(each):.2f}) |" for name, each in taken.items()
    ]
    console.print("\n".join(rows), markup=False, highlight=False)
    if write:
        replace_between_marks(DOCS, "benchmarks.floor", "\n".join(rows))


if __name__ == "__main__":
    typer.run(main)
