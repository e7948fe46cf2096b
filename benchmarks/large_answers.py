"""100,000 digits by one request: how long, how many a second, and how much memory on the way?

    python -m benchmarks.large_answers

As zip (a PNG for each) and as npy, from ``digitgan up``, to a client that reads as fast as it comes. The memory is the
peak of each process during the answer (Linux tells it, and forgets it when asked to), beside what it held before.
"""

import tempfile
import time
import zipfile
from pathlib import Path
from typing import Annotated, Final

import httpx
import numpy as np
import typer
from rich.console import Console
from rich.progress import Progress

from benchmarks.marked import replace_between_marks
from benchmarks.service import digitgan_up

DOCS: Final = Path(__file__).parent.parent / "docs/performance.md"
FORMATS: Final = {"zip": "application/zip", "npy": "application/x-npy"}


def memory_mb(pid: int, line: str) -> float:
    """Returns one line of a process's status: "VmRSS", what it holds, or "VmHWM", the most that it held."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text("utf-8").splitlines())
    return int(status[line].split()[0]) * 1024 / 1e6


def forget_peak(pid: int) -> None:
    """Has VmHWM start anew (proc(5), clear_refs)."""
    Path(f"/proc/{pid}/clear_refs").write_text("5", "utf-8")


def read(client: httpx.Client, count: int, media_type: str, target: Path, console: Console) -> float:
    """Writes an answer to a file, and returns the seconds it took."""
    start = time.perf_counter()
    body, headers = {"count": count}, {"Accept": media_type}
    with (
        Progress(console=console, transient=True) as progress,
        client.stream("POST", "/generate", json=body, headers=headers) as answer,
        target.open("wb") as file,
    ):
        task = progress.add_task(media_type, total=None)
        answer.raise_for_status()
        for piece in answer.iter_raw():
            file.write(piece)
            progress.advance(task, len(piece))
    return time.perf_counter() - start


def digits_in(path: Path) -> int:
    """Returns how many digits a file holds. Raises an error if it is damaged."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            assert archive.testzip() is None
            return sum(name.endswith(".png") for name in archive.namelist())
    return len(np.load(path, mmap_mode="r"))


def main(
    count: Annotated[int, typer.Option(help="Digits in an answer.", min=1)] = 100_000,
    write: Annotated[bool, typer.Option(help="Write the table into docs/ at the end.")] = True,
) -> None:
    """Asks for many digits by one request, as zip and as npy."""
    console = Console()
    rows = [
        "| format | s | images/s | MB | gateway, MB: before, peak | model server, MB: before, peak |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    with tempfile.TemporaryDirectory() as directory, digitgan_up() as (process, client):
        gateway = process.pid
        (server,) = map(int, Path(f"/proc/{gateway}/task/{gateway}/children").read_text("utf-8").split())
        for name, media_type in FORMATS.items():
            target = Path(directory) / f"digits.{name}"
            read(client, 1024, media_type, target, console)  # so that what comes is compared with a service in use
            before = [memory_mb(pid, "VmRSS") for pid in (gateway, server)]
            for pid in (gateway, server):
                forget_peak(pid)
            seconds = read(client, count, media_type, target, console)
            peaks = [memory_mb(pid, "VmHWM") for pid in (gateway, server)]
            assert digits_in(target) == count
            memory = " | ".join(f"{held:.0f}, {peak:.0f}" for held, peak in zip(before, peaks, strict=True))
            size = target.stat().st_size / 1e6
            rows.append(f"| {name} | {seconds:.1f} | {count / seconds:,.0f} | {size:.0f} | {memory} |")
            console.print(rows[-1], markup=False, highlight=False)
    if write:
        replace_between_marks(DOCS, "benchmarks.large_answers", "\n".join(rows))


if __name__ == "__main__":
    typer.run(main)
