"""Four times as many requests as the service can answer, for a minute: python -m benchmarks.overload

First the capacity: clients that ask again as soon as they have their answer, more and more until they get fewer images
a second. Then requests arrive at four times that rate at random moments, whatever comes back. Every one has to be
answered: with its digits about as fast as before, or at once with 503.

Once for single digits, and once for a mix of 1, 16 and 256 digits of which each size brings a third of the images. The
exit status is 1 if a promise wasn't kept. The service runs on 127.0.0.1, on all cores but one: that one makes the load,
as another machine would, so that four times the requests don't cost the service what it takes to send them.
"""

import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console

from benchmarks.load import Load, Outcome, Request, generate
from benchmarks.service import digitgan_up

CLIENTS: Final = (16, 32, 48, 64, 96)
AS_MANY: Final = 0.95
"""More clients are no more than the service can take while they get this share of the most images a second."""
MIXES: Final = {"single digits": (1,), "1, 16 and 256 digits": (1, 16, 256)}
LEAST_GOODPUT: Final = 0.9
MOST_SLOWER: Final = 2.0
REFUSED_WITHIN_MS: Final = 50.0
MOST_GROWTH_MB: Final = 100.0
_CORES: Final = os.sched_getaffinity(0)


def requests_of(sizes: Sequence[int]) -> list[Request]:
    """Returns requests of which each size has as many images, and none the same seeds."""
    seeds = iter(range(0, 2**40, max(sizes)))
    return [generate(size, next(seeds)) for size in sizes for _ in range(2 * max(sizes) // size)]


def percentile_ms(seconds: Sequence[float], share: float) -> float:
    """Returns a percentile of ascending ``seconds`` in milliseconds."""
    return 1e3 * seconds[min(len(seconds) - 1, int(share * len(seconds)))] if seconds else float("nan")


def resident_mb(pid: int) -> dict[str, float]:
    """Returns the resident megabytes of a process and its children, by name."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    pages = {one: int(Path(f"/proc/{one}/statm").read_text().split()[1]) for one in (str(pid), *children)}
    return {one: count * os.sysconf("SC_PAGE_SIZE") / 1e6 for one, count in pages.items()}


def cores(service: bool) -> None:
    """Has this process, and what it starts from now on, run where the service does or where the load is made.

    A machine with a single core has the two share it.
    """
    *others, last = sorted(_CORES)
    os.sched_setaffinity(0, others or [last] if service else [last])


def capacity(port: int, requests: Sequence[Request], seconds: float, console: Console) -> tuple[int, Outcome]:
    """Returns how many clients the service can take, and what they get."""
    found: dict[int, float] = {}
    for clients in CLIENTS:
        outcome = Load(port, requests).closed(clients, seconds)
        p99 = percentile_ms(outcome.of(200), 0.99)
        console.print(f"  {clients} clients: {outcome.images_per_s:,.0f} images/s, p99 {p99:.0f} ms")
        found[clients] = outcome.images_per_s
    clients = max(number for number in found if found[number] >= AS_MANY * max(found.values()))
    return clients, Load(port, requests).closed(clients, 6 * seconds)  # anew: the best of several was lucky


def promises(sizes: Sequence[int], usual: Outcome, loaded: Outcome, growth_mb: float) -> Iterator[tuple[bool, str]]:
    """Yields what was promised and whether it was kept."""
    share = loaded.images_per_s / usual.images_per_s
    yield share >= LEAST_GOODPUT, f"goodput {loaded.images_per_s:,.0f} images/s, {share:.0%} of capacity"
    for size in sizes:
        before, after = (percentile_ms(one.of(200, size), 0.99) for one in (usual, loaded))
        kept = after < MOST_SLOWER * before
        yield (
            kept,
            f"{size} digits: p99 of {len(loaded.of(200, size)):,} answers {after:.0f} ms, {before:.0f} at capacity",
        )
    refusals = loaded.of(503)
    refused = [percentile_ms(refusals, share) for share in (0.5, 0.99, 0.999, 1)]
    texts = ", ".join(f"{name} {ms:.1f}" for name, ms in zip(("p50", "p99", "p99.9", "slowest"), refused, strict=True))
    yield refused[1] <= REFUSED_WITHIN_MS, f"{len(refusals):,} refusals: {texts} ms"
    answered = len(loaded.of(200)) + len(refusals)
    lost = loaded.requests - answered
    why = f" ({loaded.lost[0]})" if loaded.lost else ""
    yield (
        not lost,
        f"{loaded.requests:,} requests, {answered:,} answered with 200 or 503, {lost} with anything else{why}",
    )
    yield growth_mb < MOST_GROWTH_MB, f"resident memory of all processes {growth_mb:+.0f} MB in the overload"


def main(
    seconds: Annotated[float, typer.Option(help="How long the overload lasts.", min=1)] = 60.0,
    capacity_seconds: Annotated[
        float, typer.Option(help="How long each number of clients asks; the best one then six times as long.", min=1)
    ] = 5.0,
    times: Annotated[float, typer.Option(help="The rate of the overload, as a multiple of the capacity.")] = 4.0,
    shared: Annotated[
        bool, typer.Option("--shared", help="The load has no core of its own, and the service has all.")
    ] = False,
    mix: Annotated[str, typer.Option(help=f"One of: {'; '.join(MIXES)}. All of them by default.")] = "",
) -> None:
    """Overloads the service and tells whether it keeps its promises."""
    console = Console(highlight=False, width=120)
    failed = False
    if not shared:
        cores(service=True)
    with digitgan_up() as (process, http):
        if not shared:
            cores(service=False)
        port = http.base_url.port
        assert port
        for name, sizes in MIXES.items() if not mix else [(mix, MIXES[mix])]:
            console.print(f"[bold]{name}[/bold]")
            requests = requests_of(sizes)
            Load(port, requests).closed(CLIENTS[-1], capacity_seconds)  # warms up
            clients, usual = capacity(port, requests, capacity_seconds, console)
            rate = len(usual.of(200)) / usual.took_s
            console.print(
                f"  capacity: {usual.images_per_s:,.0f} images/s, {rate:,.0f} requests/s, with {clients} clients"
            )
            before = sum(resident_mb(process.pid).values())
            loaded = Load(port, requests).open(times * rate, seconds)
            growth = sum(resident_mb(process.pid).values()) - before
            console.print(f"  {loaded.requests / loaded.took_s:,.0f} requests/s for {loaded.took_s:.0f} s")
            for kept, text in promises(sizes, usual, loaded, growth):
                console.print(f"  {'kept  ' if kept else 'BROKEN'} {text}")
                failed |= not kept
    if failed:
        sys.exit(1)


if __name__ == "__main__":
    typer.run(main)
