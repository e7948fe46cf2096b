"""Does asking for sevens cost more than asking for anything, and does one get sevens?

    python -m benchmarks.labels

Times requests for a digit, for curated ones and for labels beside plain ones, in turn, so that whatever else the
machine does slows all of them. Then asks for each digit, and has the served classifier read the same images again:
they are asked for by their noise, for which no index can answer.

Exits with 1 if a digit costs more than 1.2 × a plain request, or if fewer than 99 of 100 read as the digit asked for.
"""

import random
import statistics
import time
from pathlib import Path
from typing import Annotated, Any, Final

import httpx
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.service import service
from serving.noise import noise_from_seeds

MOST_COST: Final = 1.2
FEWEST_OF_100: Final = 99
KINDS: Final[dict[str, dict[str, Any]]] = {
    "plain": {},
    "plain again": {},
    "digit": {"digit": 7},
    "curated": {"digit": 7, "curated": True},
    "labels": {"labels": True},
}
CHEAP: Final = ("digit", "curated")


def ask(http: httpx.Client, **body: Any) -> list[dict[str, Any]]:
    """Returns the images in an answer as JSON."""
    response = http.post("/generate", json=body)
    if response.is_error:
        raise SystemExit(f"{body.keys()}: {response.json()['title']}: {response.json()['detail']}")
    images: list[dict[str, Any]] = response.json()["images"]
    return images


def costs(http: httpx.Client, count: int, rounds: int, console: Console) -> dict[str, float]:
    """Returns the median milliseconds of a request for ``count`` images, by kind."""
    seconds: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for turn in track(range(-3, rounds), f"{count} at once", console=console):
        for kind in random.sample(list(KINDS), len(KINDS)):  # what a request follows matters too
            start = time.perf_counter()
            ask(http, count=count, **KINDS[kind])
            if turn >= 0:  # the first ones fetch the index and warm up
                seconds[kind].append(time.perf_counter() - start)
    return {kind: 1000 * statistics.median(times) for kind, times in seconds.items()}


def read_again(http: httpx.Client, digit: int, *, curated: bool) -> int:
    """Returns how many of 100 images asked for as ``digit`` the classifier reads as that."""
    seeds = [image["seed"] for image in ask(http, count=100, digit=digit, curated=curated)]
    images = ask(http, noise=noise_from_seeds(seeds).tolist(), labels=True)
    return sum(image["digit"] == digit for image in images)


def main(
    url: Annotated[str | None, typer.Option(help="A gateway. Default: one of its own, on --models.")] = None,
    models: Annotated[Path | None, typer.Option(help="The models to serve. Default: the pretrained ones.")] = None,
    rounds: Annotated[
        int, typer.Option(help="Requests of each kind for 100 images; five times as many for one.", min=1)
    ] = 100,
) -> None:
    """Compares the cost of digits on request with that of plain requests, and reads what one gets."""
    console = Console()
    good = True
    arguments: list[str | Path] = ["--models", models] if models else []
    with service(url, *arguments) as http:
        counts = {1: 5 * rounds, 100: rounds}
        times = {count: costs(http, count, turns, console) for count, turns in counts.items()}
        table = Table("request", *(f"{what} {count}" for count in counts for what in ("ms for", "cost for")))
        for kind in KINDS:
            row = []
            for count in counts:
                plain = (times[count]["plain"] + times[count]["plain again"]) / 2
                cost = times[count][kind] / plain
                good = good and (kind not in CHEAP or cost <= MOST_COST)
                row += [f"{times[count][kind]:.2f}", f"{cost:.2f}"]
            table.add_row(kind, *row)
        reading = Table("of 100 asked for as", *map(str, range(10)))
        for curated in (False, True):
            right = [read_again(http, digit, curated=curated) for digit in range(10)]
            good = good and min(right) >= FEWEST_OF_100
            reading.add_row("curated, read so" if curated else "read so", *map(str, right))
    console.print(table, reading)
    raise typer.Exit(0 if good else 1)


if __name__ == "__main__":
    typer.run(main)
