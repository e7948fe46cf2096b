"""Four times as many requests as the service can answer, for a minute: python -m benchmarks.overload

First the capacity: clients that send the next request as soon as they have their answer, more and more of them until
they get fewer images a second. Then requests arrive at four times that rate at random moments, whatever comes back.

Once for single digits, and once for a mix of 1, 16 and 256 digits of which each size brings a third of the images. The
service runs on 127.0.0.1, on all cores but one: that one makes the load, as another machine would.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.table import Table

from benchmarks.load import Load, Outcome, Request, generate
from tests.support.processes import digitgan_up, resident_bytes

CLIENTS: Final = (16, 32, 48, 64, 96)
AS_MANY: Final = 0.95
"""More clients are no more than the service can take while they get this share of the most images a second."""
MIXES: Final = {"single digits": (1,), "1, 16 and 256 digits": (1, 16, 256)}


def requests_of(sizes: Sequence[int]) -> list[Request]:
    """Returns requests of which each size has as many images, and none the same seeds."""
    seeds = iter(range(0, 2**40, max(sizes)))
    return [generate(size, next(seeds)) for size in sizes for _ in range(2 * max(sizes) // size)]


def percentile_ms(seconds: Sequence[float], share: float) -> float:
    """Returns a percentile of ascending ``seconds`` in milliseconds."""
    return 1e3 * seconds[min(len(seconds) - 1, int(share * len(seconds)))] if seconds else float("nan")


def resident_mb(pid: int) -> float:
    """Returns the resident megabytes of a process and its children."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return sum(map(resident_bytes, (pid, *map(int, children)))) / 1e6


def capacity(port: int, requests: Sequence[Request], seconds: float) -> Outcome:
    """Returns what as many clients get as the service can take."""
    found = {clients: Load(port, requests).closed(clients, seconds).images_per_s for clients in CLIENTS}
    most = max(clients for clients in CLIENTS if found[clients] >= AS_MANY * max(found.values()))
    return Load(port, requests).closed(most, 6 * seconds)  # again: the best of several was lucky


def main(
    seconds: Annotated[float, typer.Option(help="How long the overload lasts.", min=1)] = 60.0,
    capacity_seconds: Annotated[
        float, typer.Option(help="How long each number of clients asks; the best one then six times as long.", min=1)
    ] = 5.0,
    times: Annotated[float, typer.Option(help="The rate of the overload, as a multiple of the capacity.")] = 4.0,
) -> None:
    """Overloads the service, and prints its goodput, its times and its refusals."""
    *others, last = sorted(os.sched_getaffinity(0))
    table = Table("mix", "", "images/s", "requests/s", "p99 ms of 200, by digits", "503: p50, p99 ms", "lost", "MB")
    os.sched_setaffinity(0, others or [last])
    with digitgan_up() as (server, http):
        os.sched_setaffinity(0, [last])
        port = http.base_url.port
        assert port
        for name, sizes in MIXES.items():
            requests = requests_of(sizes)
            Load(port, requests).closed(CLIENTS[-1], capacity_seconds)  # warms up
            usual = capacity(port, requests, capacity_seconds)
            before = resident_mb(server.process.pid)
            loaded = Load(port, requests).open(times * len(usual.of(200)) / usual.took_s, seconds)
            growth = f"{resident_mb(server.process.pid) - before:+.0f}"
            for what, outcome, memory in (("capacity", usual, ""), (f"{times:g} × capacity", loaded, growth)):
                refused = [f"{percentile_ms(outcome.of(503), share):.1f}" for share in (0.5, 0.99)]
                table.add_row(
                    name,
                    what,
                    f"{outcome.images_per_s:,.0f}",
                    f"{outcome.requests / outcome.took_s:,.0f}",
                    ", ".join(f"{size}: {percentile_ms(outcome.of(200, size), 0.99):.0f}" for size in sizes),
                    ", ".join(refused),
                    f"{len(outcome.lost)}",
                    memory,
                )
    Console(width=140).print(table)


if __name__ == "__main__":
    typer.run(main)
