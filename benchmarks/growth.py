"""How do throughput, latency and memory grow with the number of gateways and model servers?

    python -m benchmarks.growth

Measures gateways and model servers pinned to two cores, and takes each process's processor time a request from the
first of these runs. The model is a closed queueing network; each core is a station. Mean value analysis (Reiser and
Lavenberg 1980) gives its throughput and latency: for the other runs, as a check, and for more cores than two.
"""

import os
import resource
import statistics
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Annotated, Final

import typer
from matplotlib.figure import Figure

from benchmarks.gateway import DOCS, cpu_seconds, gateway, load_of, record_digits
from benchmarks.marked import markdown_table, replace_between_marks
from benchmarks.peers.load import SCENARIOS, Scenario, require_wrk
from tests.support import gateways
from tests.support.processes import EMBEDDED, ModelServerProcess, free_port

PLOT: Final = DOCS.parent / "images/growth.png"
CHOSEN: Final = [one for one in SCENARIOS if one.name in ("1x1", "1x64", "16x8")]
LARGER: Final = ((1, 4), (4, 4), (16, 16))
ANSWER_IMAGES: Final = 65_536
JSON_IMAGES: Final = 4096


@dataclass(frozen=True)
class Layout:
    """The core of each gateway, of each model server, and those of the load."""

    title: str
    gateways: tuple[int, ...]
    servers: tuple[int, ...]
    load: tuple[int, ...] = ()


LAYOUTS: Final = (
    Layout("1 and 1, a core each", (0,), (1,), (0,)),
    Layout("1 and 1 on one core", (0,), (0,), (1,)),
    Layout("2 on one core, 1 on the other", (0, 0), (1,), (0,)),
    Layout("1 and 1 on one core, 1 server on the other", (0,), (0, 1), (0,)),
    Layout("2 and 2, a pair on each core", (0, 1), (0, 1), (0, 1)),
)


@dataclass(frozen=True)
class Measured:
    """``demands``: the processor seconds a request of the gateway, the model server and the load."""

    images_per_s: float
    p50_ms: float
    demands: tuple[float, float, float]


@contextmanager
def pinned(*cores: int) -> Iterator[None]:
    """Lets this thread, and the processes that it starts in the block, run on these cores only."""
    usable = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {sorted(usable)[core] for core in cores})
    try:
        yield
    finally:
        os.sched_setaffinity(0, usable)


def run(layout: Layout, seconds: int) -> tuple[dict[str, Measured], list[float]]:
    """Returns what each scenario measured, by name, and the resident megabytes of a gateway and of a model server."""
    with ExitStack() as started:
        servers, clients = [], []
        for core in layout.servers:
            port = free_port()
            flags = [f"--port={port}", "--tensorflow_intra_op_parallelism=1"]
            with pinned(core):
                servers.append(started.enter_context(ModelServerProcess(EMBEDDED, flags, f"127.0.0.1:{port}")))
        target = "ipv4:" + ",".join(server.target for server in servers)
        for core in layout.gateways:
            with pinned(core):
                clients.append(started.enter_context(gateways.serving(target, ("-m", "digitgan", "gateway"))))
        measured = {}
        for scenario in CHOSEN:

            def load(client: gateways.GatewayClient, scenario: Scenario = scenario) -> tuple[int, float, float]:
                with pinned(*layout.load):
                    load_of(client, scenario, 1)
                    found = load_of(client, scenario, seconds)
                return found.requests, found.requests / found.seconds, found.p50_ms

            def used() -> list[float]:
                wrk = resource.getrusage(resource.RUSAGE_CHILDREN)
                processes = [one.process for one in clients]
                return [sum(map(cpu_seconds, processes)), sum(map(cpu_seconds, servers)), wrk.ru_utime + wrk.ru_stime]

            before = used()
            with ThreadPoolExecutor(len(clients)) as pool:
                loads = list(pool.map(load, clients))
            requests, rates, p50s = (list(column) for column in zip(*loads, strict=True))
            # The second of warming up uses processor time at the same rate.
            total = sum(requests) * (1 + 1 / seconds)
            gateway_s, server_s, load_s = ((after - at) / total for after, at in zip(used(), before, strict=True))
            demands = gateway_s, server_s, load_s
            measured[scenario.name] = Measured(sum(rates) * scenario.seeds, statistics.mean(p50s), demands)
        parts = [one.process for one in clients], servers
        resident = [statistics.mean(one.resident_bytes() for one in part) / 1e6 for part in parts]
    return measured, resident


def solve(demands: Sequence[float], clients: int, delay_s: float) -> tuple[float, float]:
    """Returns requests a second and the seconds of one, for clients that wait for nothing but their answers.

    Mean value analysis: an arriving request finds the queues as they are on average with one client fewer.
    """
    queues, rate, times = [0.0] * len(demands), 0.0, list(demands)
    for number in range(1, clients + 1):
        times = [demand * (1 + queue) for demand, queue in zip(demands, queues, strict=True)]
        rate = number / (delay_s + sum(times))
        queues = [rate * time for time in times]
    return rate, delay_s + sum(times)


def modelled(layout: Layout, scenario: Scenario, measured: Measured, delay_s: float) -> tuple[float, float]:
    """Returns the images a second and the milliseconds of a request that the model gives for a layout."""
    cores = dict.fromkeys((*layout.gateways, *layout.servers, *layout.load), 0.0)
    for places, demand in zip((layout.gateways, layout.servers, layout.load), measured.demands, strict=True):
        for core in places:
            cores[core] += demand / len(places)
    rate, seconds = solve(list(cores.values()), scenario.clients * len(layout.gateways), delay_s)
    return rate * scenario.seeds, 1e3 * seconds


def separate(gateways_: int, servers: int) -> Layout:
    """Returns a layout with a core for each process, and with the load elsewhere."""
    cores = tuple(range(gateways_ + servers))
    return Layout(f"{gateways_} and {servers}, a core each", cores[:gateways_], cores[gateways_:])


def memory_of_answers() -> dict[str, list[float]]:
    """Returns the gateway's resident megabytes while it sends 65,536 images, by format."""
    curves: dict[str, list[float]] = {}
    with gateway(record_digits()) as client:
        for name, media_type, count in (
            ("npy", "application/x-npy", ANSWER_IMAGES),
            ("zip", "application/zip", ANSWER_IMAGES),
            (f"JSON, {JSON_IMAGES:,} an answer", "application/json", JSON_IMAGES),
        ):
            curve: list[float] = []
            done = threading.Event()

            def watch(curve: list[float] = curve, done: threading.Event = done) -> None:
                while not done.wait(0.02):
                    curve.append(client.process.resident_bytes() / 1e6)

            watcher = threading.Thread(target=watch)
            watcher.start()
            for first in range(0, ANSWER_IMAGES, count):
                body = {"count": count, "start": first}
                with client.stream("POST", "/generate", json=body, headers={"Accept": media_type}) as answer:
                    answer.raise_for_status()
                    for _ in answer.iter_raw():
                        pass
            done.set()
            watcher.join()
            curves[name] = curve
    return curves


def draw(alone: dict[str, Measured], first: dict[str, Measured], curves: dict[str, list[float]]) -> None:
    """Draws throughput by gateways and model servers, and the memory of answers."""
    figure = Figure(figsize=(12, 3.4), layout="constrained")
    *panels, memory = figure.subplots(1, 3)
    counts = range(1, 17)
    for panel, scenario in zip(panels, CHOSEN[1:], strict=True):
        for servers in (1, 2, 4, 8):
            rates = [modelled(separate(count, servers), scenario, alone[scenario.name], 0)[0] for count in counts]
            panel.plot(counts, rates, label=f"model servers: {servers}")
        panel.plot(1, first[scenario.name].images_per_s, "ko", label="measured")
        panel.set(title=f"{scenario.title} for each gateway", xlabel="gateways", ylabel="images/s", ylim=0)
        panel.legend(fontsize="x-small", loc="upper left", framealpha=0.5)
    for name, curve in curves.items():
        memory.plot([place / len(curve) for place in range(len(curve))], curve, label=name)
    memory.set(title=f"{ANSWER_IMAGES:,} images", xlabel="share of the time", ylabel="gateway: resident MB", ylim=0)
    memory.legend(fontsize="small")
    figure.savefig(PLOT, dpi=80)


def main(
    seconds: Annotated[int, typer.Option(help="How long each scenario is measured.", min=1)] = 4,
    write: Annotated[bool, typer.Option(help="Write the table and the plot into docs/ at the end.")] = True,
) -> None:
    """Measures growth, and extends it by the model."""
    require_wrk()
    found = [(layout, *run(layout, seconds)) for layout in LAYOUTS]
    _, first, (gateway_mb, server_mb) = found[0]
    delay_s = max(0.0, first["1x1"].p50_ms / 1e3 - sum(first["1x1"].demands))
    head = ["measured/modelled, load for each gateway"]
    for scenario in CHOSEN:
        head += f"{scenario.title}: images/s", "ms"
    rows = []
    for layout, measured, _ in found:
        cells = [layout.title]
        for scenario in CHOSEN:
            rate, ms = modelled(layout, scenario, first[scenario.name], delay_s)
            seen = measured[scenario.name]
            cells += f"{seen.images_per_s:,.0f}/{rate:,.0f}", f"{seen.p50_ms:.1f}/{ms:.1f}"
        rows.append(cells)
    # Beyond these, the load comes from other machines.
    alone = {name: replace(seen, demands=(*seen.demands[:2], 0.0)) for name, seen in first.items()}
    for layout in (separate(*pair) for pair in LARGER):
        cells = [layout.title]
        for scenario in CHOSEN:
            rate, ms = modelled(layout, scenario, alone[scenario.name], delay_s)
            cells += f"{rate:,.0f}", f"{ms:.1f}"
        rows.append(cells)
    curves = memory_of_answers()
    lines = [markdown_table(head, *rows)]
    for scenario in CHOSEN[1:]:
        own, model, _ = first[scenario.name].demands
        lines.append(
            f"{scenario.title}: a request takes {1e6 * own:,.0f} µs of the gateway's core and {1e6 * model:,.0f} µs of"
            f" the model server's, so one model server feeds {own / model:.2g} gateways."
        )
    peaks = ", ".join(f"{name}: {max(curve):.0f}" for name, curve in curves.items())
    lines.append(
        f"A gateway has {gateway_mb:.0f} MB and a model server {server_mb:.0f} MB after this load. The most MB of a"
        f" gateway during {ANSWER_IMAGES:,} images: {peaks}."
    )
    table = "\n".join(lines) + "\n"
    print(table)
    if write:
        draw(alone, first, curves)
        replace_between_marks(DOCS, "benchmarks.growth", table)


if __name__ == "__main__":
    typer.run(main)
