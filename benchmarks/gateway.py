"""What does the gateway add to the model's own time? Stage by stage, and whole requests.

    python -m benchmarks.gateway

Whole requests go to the real gateway in front of a model server in this process that answers at once, by wrk. So
their time holds everything but the model's own work: both sides of HTTP and of the gRPC call. "In the gateway" is the
mean of its own metric, digitgan_gateway_seconds: what passes there while no call is under way, without uvicorn's
parsing. Processor time is the gateway's.
"""

import base64
import io
import math
import os
import statistics
import tempfile
import timeit
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Final

import grpc
import numpy as np
import orjson
import typer
from numpy.typing import NDArray
from rich.console import Console

from api.formats import images
from api.http.schemas import GenerateRequest
from benchmarks.marked import markdown_table, replace_between_marks
from benchmarks.peers.load import SCENARIOS, Load, Scenario, measure, require_wrk
from benchmarks.peers.services import SERVICES
from serving.apis import PredictRequest
from serving.contract import GENERATOR, IMAGES, NOISE, NOISE_DIM, SIGNATURE
from serving.model_server.loaded_version import load_version
from serving.model_server.options import ServerOptions
from serving.noise import noise_from_seeds
from tests.support import gateways
from tests.support.misbehaving import MisbehavingServer, answer
from tests.support.pretrained import pretrained
from tests.support.processes import ServerProcess, digitgan_up

DOCS: Final = Path(__file__).parent.parent / "docs/performance.md"
COUNTS: Final = (1, 16, 256)
WARM_UP_S: Final = 1
_TICKS_A_SECOND: Final = os.sysconf("SC_CLK_TCK")

Pixels = NDArray[np.uint8]


def stages(digits: Pixels) -> dict[str, Callable[[], object]]:
    """Returns the steps of a request for so many digits, by name."""
    seeds = list(range(len(digits)))
    body = orjson.dumps({"seeds": seeds})
    pngs = [images.png(digit) for digit in digits]
    return {
        "read and validate": lambda: GenerateRequest.model_validate_json(body),
        "seeds to noise": lambda: noise_from_seeds(seeds),
        "PNG": lambda: [images.png(digit) for digit in digits],
        "base64": lambda: [base64.b64encode(png).decode() for png in pngs],
    }


def microseconds(function: Callable[[], object], times: int = 100) -> float:
    """Returns the least time of a call: what it takes when nothing comes between."""
    return 1e6 * min(timeit.repeat(function, number=1, repeat=times))


def record_digits() -> Pixels:
    """Returns the first 256 digits of the service."""
    with digitgan_up() as (_, http):
        response = http.post("/generate", json={"seeds": list(range(256))}, headers={"Accept": "application/x-npy"})
    digits: Pixels = np.load(io.BytesIO(response.raise_for_status().content))
    return digits


def cpu_seconds(server: ServerProcess) -> float:
    fields = Path(f"/proc/{server.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_A_SECOND


def products_and_weights() -> tuple[int, int]:
    """Returns the multiplications that the generator's graph needs for an image, and the bytes of its constants."""
    import openvino

    graph = openvino.Core().read_model(pretrained(GENERATOR))
    graph.reshape([1, NOISE_DIM])
    products = weights = 0
    for node in graph.get_ordered_ops():
        outputs = math.prod(node.get_output_shape(0)) if node.get_output_size() else 0
        match node.get_type_name():
            case "Constant":
                weights += outputs * node.get_output_element_type(0).size
            case "MatMul":
                products += outputs * node.get_input_shape(0)[-1]
            case "Convolution":
                products += outputs * math.prod(node.get_input_shape(1)[1:])
    return products, weights


def cost_table() -> str:
    """Returns the engine's time for an image beside the least that the graph can take on this machine."""
    products, weights = products_and_weights()
    matrix = np.ones((2048, 2048), np.float32)
    large = np.ones(2**26, np.float32)
    target = np.empty_like(large)
    products_per_us = len(matrix) ** 3 / microseconds(lambda: matrix @ matrix, 30)
    bytes_per_us = 2 * large.nbytes / microseconds(lambda: np.copyto(target, large), 5)
    engine = load_version(pretrained(GENERATOR), ServerOptions(()))
    about = (
        f"An image needs {products / 1e6:.1f} million products, the weights {weights / 1e6:.1f} MB. NumPy reaches"
        f" {products_per_us / 1e3:,.0f} products a nanosecond, and {bytes_per_us / 1e3:.1f} GB/s in a copy."
    )
    rows = []
    for count in COUNTS:
        noise = noise_from_seeds(range(count))
        took = microseconds(lambda noise=noise: engine.run(SIGNATURE, {NOISE: noise}), 50) / count  # type: ignore[misc]
        least = products / products_per_us, weights / bytes_per_us / count
        rows.append([f"{count}", *(f"{value:,.0f}" for value in (took, *least)), f"{took / max(least):.1f} ×"])
    head = ("batch", "engine: µs an image", "products: µs", "weights: µs", "engine to the larger")
    return f"{about}\n\n{markdown_table(head, *rows)}"


def own_seconds(client: gateways.GatewayClient) -> tuple[float, float]:
    """Returns how long a gateway's requests took so far, without their waits for the model server, and their number."""
    total, count = (client.metric(f"gateway_seconds_{name}", route="/generate") for name in ("sum", "count"))
    return total, count


@contextmanager
def gateway(digits: Pixels) -> Iterator[gateways.GatewayClient]:
    """Runs a gateway in front of a model server that gives the first N digits for any N rows, at once."""
    recorded: dict[int, bytes] = {}

    def replay(request: PredictRequest, context: grpc.ServicerContext) -> bytes:
        rows = request.inputs[NOISE].tensor_shape.dim[0].size
        if rows not in recorded:
            recorded[rows] = answer(request, {IMAGES: digits[:rows, ..., np.newaxis]})
        return recorded[rows]

    with (
        tempfile.TemporaryDirectory(prefix="digitgan-") as directory,
        MisbehavingServer(f"unix:{directory}/replay.sock") as server,
        gateways.serving(server.target, max_images_in_flight=100_000) as client,
    ):
        server.behaviour = replay
        yield client


def load_of(client: gateways.GatewayClient, scenario: Scenario, seconds: int) -> Load:
    return measure(SERVICES[0], client.base_url.port or 0, scenario, seconds)


def main(
    rounds: Annotated[int, typer.Option(help="How often each scenario is measured.", min=1)] = 6,
    seconds: Annotated[int, typer.Option(help="How long each scenario is measured.", min=1)] = 2,
    write: Annotated[bool, typer.Option(help="Write the tables into docs/ at the end.")] = True,
) -> None:
    """Measures the gateway without the model's own time."""
    console = Console()
    require_wrk()
    digits = record_digits()
    parts = [cost_table(), _stage_table(digits)]
    console.print(*parts, sep="\n", markup=False, highlight=False)
    rows: list[dict[str, Any]] = []
    for number in range(rounds):
        console.print(f"Round {number + 1} of {rounds}")
        rows += _whole_requests(digits, seconds)
    parts.append(_request_table(rows))
    console.print(parts[-1], markup=False, highlight=False)
    if write:
        replace_between_marks(DOCS, "benchmarks.gateway", "\n".join(parts))


def _whole_requests(digits: Pixels, seconds: int) -> list[dict[str, Any]]:
    rows = []
    with gateway(digits) as client:
        for scenario in SCENARIOS:
            load_of(client, scenario, WARM_UP_S)
            before, own_before = cpu_seconds(client.process), own_seconds(client)
            load = load_of(client, scenario, seconds)
            if load.failures or not load.requests:
                raise RuntimeError(f"{scenario.title}: {load.failures} failures, {load.requests} answers")
            seconds_after, requests_after = own_seconds(client)
            rows.append(
                {
                    "scenario": scenario.title,
                    "ms p50": load.p50_ms,
                    "ms p99": load.p99_ms,
                    "in the gateway: ms": 1e3 * (seconds_after - own_before[0]) / (requests_after - own_before[1]),
                    "requests/s": load.requests / load.seconds,
                    "processor time: µs": 1e6 * (cpu_seconds(client.process) - before) / load.requests,
                }
            )
    return rows


def _stage_table(digits: Pixels) -> str:
    columns = [{name: microseconds(step) for name, step in stages(digits[:count]).items()} for count in COUNTS]
    rows = [[name, *(f"{column[name]:,.0f}" for column in columns)] for name in columns[0]]
    return markdown_table(["stage", *(f"{count} digit{'s' * (count > 1)}: µs" for count in COUNTS)], *rows)


def _request_table(rows: list[dict[str, Any]]) -> str:
    _, *measures = rows[0]
    table = []
    for scenario in SCENARIOS:
        found = [row for row in rows if row["scenario"] == scenario.title]
        medians = [statistics.median(row[name] for row in found) for name in measures]
        table.append([scenario.title, *(f"{value:,.0f}" if value >= 100 else f"{value:.2f}" for value in medians)])
    return markdown_table(["whole requests", *measures], *table)


if __name__ == "__main__":
    typer.run(main)
