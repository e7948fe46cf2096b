"""Does a seed's digit depend on its batch? Asks for each seed alone, in batches of 7 and of 256, and compares.

    python -m benchmarks.pixel_parity --seeds 2000

Exits with 1 if any pixel differs.
"""

import io
from typing import Annotated

import httpx
import numpy as np
import typer
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.service import service

BATCHES = (7, 256)

Pixels = NDArray[np.uint8]


def alone(http: httpx.Client, seed: int, version: int) -> Pixels:
    """Returns a seed's digit as its own PNG has it: uint8 [28, 28]."""
    response = http.get(f"/digits/{seed}.png", params={"version": version}).raise_for_status()
    return np.asarray(Image.open(io.BytesIO(response.content)))


def together(http: httpx.Client, seeds: list[int], version: int) -> Pixels:
    """Returns the digits of one request: uint8 [N, 28, 28]."""
    response = http.post(
        "/generate",
        json={"seeds": seeds, "version": version},
        headers={"Accept": "application/x-npy"},
    ).raise_for_status()
    pixels: Pixels = np.load(io.BytesIO(response.content))
    return pixels


def main(
    url: Annotated[
        str | None, typer.Option(help="A gateway. Default: one of its own, on the pretrained model.")
    ] = None,
    seeds: Annotated[int, typer.Option(help="How many seeds, from 0 on.", min=1)] = 2000,
) -> None:
    """Compares each seed's digit, asked for alone, with the same digit from batches of 7 and of 256."""
    console = Console()
    wanted = list(range(seeds))
    with service(url) as http:
        first = http.get("/digits/0.png").raise_for_status()
        version = int(first.headers["x-model-version"])
        reference = np.stack([alone(http, seed, version) for seed in track(wanted, "alone", console=console)]).astype(
            np.int16
        )
        table = Table("batch", "seeds", "digits that differ", "pixels that differ", "largest difference")
        differing = 0
        for batch in BATCHES:
            starts = track(range(0, seeds, batch), f"batches of {batch}", console=console)
            parts = [together(http, wanted[start : start + batch], version) for start in starts]
            difference = np.abs(np.concatenate(parts) - reference)
            digits = int(difference.any(axis=(1, 2)).sum())
            differing += digits
            pixels, largest = int((difference > 0).sum()), int(difference.max())
            table.add_row(str(batch), str(seeds), str(digits), str(pixels), str(largest))
    console.print(table)
    raise typer.Exit(1 if differing else 0)


if __name__ == "__main__":
    typer.run(main)
