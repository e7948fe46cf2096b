"""How fast is digitgan beside what one would pick instead? The same generator behind several services, under wrk.

    python -m benchmarks.peers                 six rounds: about a quarter of an hour on an idle machine
    python -m benchmarks.peers --rounds 1 --seconds 1

In a round every service in turn is started, checked for its pixels, loaded, and stopped. Each peer has an environment
of its own in .bench/, which is made the first time. digitgan runs a second time where tensorflow_model_server is on
the PATH. A run that was stopped continues. At the end the table goes between the marks in docs/performance.md.
"""

import base64
import io
import json
import os
import platform
import random
from pathlib import Path
from typing import Annotated, Any, Final

import numpy as np
import typer
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console

from benchmarks.marked import replace_between_marks
from benchmarks.peers import figures
from benchmarks.peers.environments import CACHE, python_of, reference_pixels
from benchmarks.peers.load import SCENARIOS, measure, require_wrk
from benchmarks.peers.services import SERVICES, Running, Service, running
from serving.contract import NOISE_DIM

RESULTS: Final = CACHE / "peers.jsonl"
DOCS: Final = Path(__file__).parent.parent.parent / "docs/performance.md"
WARM_UP_S: Final = 1
CHECKED_SEEDS: Final = (7, 8, 9)
MOST_PIXEL_DIFFERENCE: Final = 1


def check(under_test: Running, expected: NDArray[np.uint8]) -> None:
    """Raises RuntimeError unless the service makes the digits that the plain network makes, but for rounding.

    The peers take their noise from NumPy's normal numbers, so this request gives digitgan the same noise.
    """
    service = under_test.service
    body = service.body(CHECKED_SEEDS)
    if service.is_ours:
        noise = [np.random.default_rng(seed).standard_normal(NOISE_DIM, np.float32).tolist() for seed in CHECKED_SEEDS]
        body = json.dumps({"noise": noise}).encode()
    pngs = service.pngs(under_test.ask(body))
    pixels = np.stack([np.asarray(Image.open(io.BytesIO(base64.b64decode(png)))) for png in pngs])
    difference = int(np.abs(pixels.astype(int) - expected[..., 0]).max())
    if difference > MOST_PIXEL_DIFFERENCE:
        raise RuntimeError(f"{service.name} makes other digits: pixels differ by up to {difference}")


def one_turn(service: Service, expected: NDArray[np.uint8], seconds: int, console: Console) -> list[dict[str, Any]]:
    """Starts a service, measures it, and stops it: returns a row for its start and for each scenario."""
    rows: list[dict[str, Any]] = []
    with running(service, console, CACHE / f"{service.name}.log") as under_test:
        check(under_test, expected)
        for scenario in SCENARIOS:
            measure(service, under_test.port, scenario, WARM_UP_S)
            load = measure(service, under_test.port, scenario, seconds)
            if load.failures or not load.requests:
                raise RuntimeError(
                    f"{service.name}, {scenario.title}: {load.failures} failures, {load.requests} answers"
                )
            images = load.requests * scenario.seeds / load.seconds
            rows.append(
                {"scenario": scenario.name, "images_per_s": images, "p50_ms": load.p50_ms, "p99_ms": load.p99_ms}
            )
            console.print(f"  {service.name}, {scenario.title}: {images:.0f} images/s, p50 {load.p50_ms:.1f} ms")
        start = {"scenario": figures.START, "start_s": under_test.start_s, "memory_mb": under_test.memory_mb()}
        return [start, *rows]


def main(
    rounds: Annotated[int, typer.Option(help="How often each service has its turn.", min=1)] = 6,
    seconds: Annotated[int, typer.Option(help="How long each scenario is measured.", min=1)] = 3,
    only: Annotated[list[str] | None, typer.Option(help="Only this service; can be repeated.")] = None,
    again: Annotated[bool, typer.Option("--again", help="Forget the figures of earlier runs first.")] = False,
    write: Annotated[bool, typer.Option(help="Write the table into docs/ at the end.")] = True,
) -> None:
    """Puts digitgan and its peers under the same load, in turn, and compares."""
    console = Console()
    require_wrk()
    chosen = [service for service in SERVICES if not only or service.name in only]
    CACHE.mkdir(exist_ok=True)
    if again:
        RESULTS.unlink(missing_ok=True)
    for service in chosen:
        if not service.is_ours:
            python_of(service.name, console)
    expected = reference_pixels(CHECKED_SEEDS, console)
    failed = False
    for number in range(rounds):
        for service in random.sample(chosen, len(chosen)):
            if any(row["round"] == number and row["service"] == service.name for row in read()):
                continue
            console.print(f"Round {number + 1} of {rounds}: {service.name}")
            try:
                rows = one_turn(service, expected, seconds, console)
            except RuntimeError as error:  # the others still have their turns; the next run tries again
                console.print(f"[red]  {error}[/]")
                failed = True
                continue
            about = {"round": number, "service": service.name, "seconds": seconds}
            with RESULTS.open("a", encoding="utf-8") as file:
                file.writelines(json.dumps(about | row) + "\n" for row in rows)
    if failed:
        console.print("Some turns failed: the same command again has them once more.")
        raise typer.Exit(1)
    rows = read()
    table = figures.markdown(rows, _about(rounds))
    console.print(table, markup=False, highlight=False)
    if write:
        replace_between_marks(DOCS, "benchmarks.peers", table)


def read() -> list[dict[str, Any]]:
    lines = RESULTS.read_text("utf-8").splitlines() if RESULTS.is_file() else ()
    return [json.loads(line) for line in lines]


def _about(rounds: int) -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    names = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    machine = f"{len(os.sched_getaffinity(0))} cores of {(names or [platform.machine()])[0]}"
    return f"{machine}, medians of {rounds} interleaved rounds; ratios: median (least–most)."


if __name__ == "__main__":
    typer.run(main)
