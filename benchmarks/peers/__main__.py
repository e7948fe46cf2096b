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
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import numpy as np
import typer
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console

from benchmarks.marked import markdown_table, replace_between_marks
from benchmarks.peers.environments import CACHE, python_of, reference_pixels
from benchmarks.peers.load import SCENARIOS, measure, require_wrk
from benchmarks.peers.services import OURS, SERVICES, Running, Service, running
from serving.contract import NOISE_DIM

RESULTS: Final = CACHE / "peers.jsonl"
DOCS: Final = Path(__file__).parent.parent.parent / "docs/performance.md"
WARM_UP_S: Final = 1
CHECKED_SEEDS: Final = (7, 8, 9)
MOST_PIXEL_DIFFERENCE: Final = 1
MEASURES: Final = (
    # Scenario, key of its rows, unit, whether more is better, and the ratio to the best peer that is wanted.
    ("1x1", "p50_ms", "ms p50", False, 1.0),
    ("1x16", "images_per_s", "images/s", True, 2.0),
    ("1x64", "images_per_s", "images/s", True, 2.0),
    ("1x64", "p99_ms", "ms p99", False, 0.5),
    ("16x1", "images_per_s", "images/s", True, 2.0),
    ("16x8", "images_per_s", "images/s", True, 2.0),
    ("256x1", "images_per_s", "images/s", True, 2.0),
)
START: Final = "start"


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
        start = {"scenario": START, "start_s": under_test.start_s, "memory_mb": under_test.memory_mb()}
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
    table = markdown(rows, _about(rounds))
    console.print(table, markup=False, highlight=False)
    if write:
        replace_between_marks(DOCS, "benchmarks.peers", table)


def markdown(rows: Sequence[Mapping[str, Any]], about: str) -> str:
    """Returns the table of ``docs/performance.md``: medians, and ratios to the best peer with their spread."""
    services = sorted({row["service"] for row in rows}, key=lambda name: (not name.startswith(OURS), name))
    peers = [name for name in services if not name.startswith(OURS)]

    def values(service: str, scenario: str, key: str) -> dict[int, float]:
        found = [row for row in rows if (row["service"], row["scenario"]) == (service, scenario)]
        return {row["round"]: row[key] for row in found if key in row}

    def cells(scenario: str, key: str) -> list[str]:
        medians = [statistics.median(values(name, scenario, key).values() or [float("nan")]) for name in services]
        return [f"{median:,.0f}" if median >= 100 else f"{median:.3g}" for median in medians]

    def ratio(scenario: str, key: str, more: bool) -> str:
        """Returns our figure over the best peer's, round by round: the median, the least and the most."""
        best = (max if more else min)(peers, key=lambda name: statistics.median(values(name, scenario, key).values()))
        ours, theirs = (values(name, scenario, key) for name in (OURS, best))
        ratios = [ours[number] / theirs[number] for number in sorted(ours.keys() & theirs.keys())]
        return f"{statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f}) × {best}"

    titles = {scenario.name: scenario.title for scenario in SCENARIOS}
    table = []
    for scenario, key, unit, more, wanted in MEASURES:
        compared = (
            f"{ratio(scenario, key, more)} ({'≥' if more else '≤'} {wanted:g})" if peers and OURS in services else ""
        )
        table.append([f"{titles[scenario]}: {unit}", *cells(scenario, key), compared])
    table.append(["start to first digit: s", *cells(START, "start_s"), ""])
    table.append(["resident after all that: MB", *cells(START, "memory_mb"), ""])
    return f"{about}\n\n{markdown_table(['', *services, 'to the best peer (wanted)'], *table)}"


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
