"""Which engine runs the generator fastest: one of ours on the exported graph, or another one on the plain network?

    pip install onnx onnxruntime
    python -m benchmarks.engines

Each engine has a process of its own, set to answer one batch as soon as it can. They take turns, in random order, so
that whatever else the machine does slows all alike. Pixels are compared before anything is timed. On a machine that
does other work, --threads 1 and the processor time are what to look at: other processes take time from the clock, and
several threads wait for each other (some by spinning, which counts as processor time).
"""

import multiprocessing
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.spread import spread
from serving.contract import GENERATOR, IMAGES, NOISE, NOISE_DIM, SIGNATURE
from serving.model_server import engines
from serving.quiet import quiet_tensorflow_import, without_openvino_converter

PACKAGES = ("tensorflow", "onnx", "onnxruntime", "openvino")
REFERENCE = "OpenVINO, exported graph"

Pixels = NDArray[np.uint8]
Engine = Callable[[NDArray[np.float32]], Pixels]


def served(engine: engines.Engine) -> Callable[[Path, int], Engine]:
    """An embedded model server's engine, on a SavedModel."""

    def load(directory: Path, threads: int) -> Engine:
        servable = engines.loader(engine)(directory, threads, threads)
        return lambda noise: servable.run(SIGNATURE, {NOISE: noise})[IMAGES]

    return load


def onnxruntime_engine(path: Path, threads: int) -> Engine:
    """ONNX Runtime on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda noise: session.run([IMAGES], {NOISE: noise})[0]


def openvino_engine(path: Path, threads: int) -> Engine:
    """OpenVINO on the CPU, in float32 even where the CPU has bfloat16."""
    with without_openvino_converter():
        import openvino

    hints = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads}
    request = openvino.Core().compile_model(str(path), "CPU", hints).create_infer_request()
    return lambda noise: np.array(request.infer({NOISE: noise})[IMAGES])


ENGINES: dict[str, tuple[Callable[[Path, int], Engine], str]] = {
    REFERENCE: (served(engines.Engine.OPENVINO), "exported"),
    "TensorFlow, exported graph": (served(engines.Engine.TENSORFLOW), "exported"),
    "TensorFlow, Keras's export": (served(engines.Engine.TENSORFLOW), "keras"),
    "ONNX Runtime, plain network": (onnxruntime_engine, "plain.onnx"),
    "OpenVINO, plain network": (openvino_engine, "plain.onnx"),
}
"""Name -> how to load it, and what."""


def save_models(base: Path) -> None:
    """Writes what the engines load. In a process of its own, so that TensorFlow's threads are gone when they run."""
    with quiet_tensorflow_import():
        from benchmarks.plain_exports import example_generator, save_keras, save_onnx
        from training.export import export
    generator = example_generator()
    export({GENERATOR: generator}, base, {})
    (base / GENERATOR / "1").rename(base / "exported")
    save_keras(generator, base / "keras")
    save_onnx(generator, base / "plain.onnx")


@dataclass(frozen=True)
class Run:
    """What a batch took, in seconds by the clock and in processor seconds, and the pixels."""

    wall: float
    processor: float
    pixels: Pixels


def work(name: str, base: Path, threads: int, pipe: Connection) -> None:
    """Runs an engine for each (noise, times) that comes."""
    load, model = ENGINES[name]
    engine = load(base / model, threads)
    pipe.send("loaded")
    while (job := pipe.recv()) is not None:
        noise, times = job
        wall, processor = time.perf_counter(), time.process_time()
        for _ in range(times):
            pixels = engine(noise)
        wall, processor = time.perf_counter() - wall, time.process_time() - processor
        pipe.send(Run(wall / times, processor / times, pixels))


def main(
    sizes: Annotated[str, typer.Option(help="Batch sizes, separated by commas.")] = "1,8,64,256",
    rounds: Annotated[int, typer.Option(help="Timed rounds at each size.", min=3)] = 9,
    seconds: Annotated[float, typer.Option(help="About how long each engine runs in a round.")] = 0.3,
    threads: Annotated[int, typer.Option(help="Of each engine; 0 leaves it to the engine.", min=0)] = 0,
) -> None:
    """Times the generator in each engine, side by side."""
    console = Console()
    try:
        console.print(", ".join(f"{package} {version(package)}" for package in PACKAGES))
    except PackageNotFoundError as missing:
        console.print(f"{missing.name} isn't there: pip install onnx onnxruntime")
        raise typer.Exit(2) from missing
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as directory:
        base = Path(directory)
        saver = context.Process(target=save_models, args=(base,))
        saver.start()
        saver.join()
        if saver.exitcode:
            raise typer.Exit(1)
        pipes: dict[str, Any] = {}
        for name in ENGINES:
            pipes[name], theirs = context.Pipe()
            context.Process(target=work, args=(name, base, threads, theirs), daemon=True).start()
            theirs.close()
        for pipe in pipes.values():
            pipe.recv()
        compare_pixels(console, pipes)
        compare_speed(console, pipes, [int(size) for size in sizes.split(",")], rounds, seconds)
        for pipe in pipes.values():
            pipe.send(None)


def ask(pipe: Any, noise: NDArray[np.float32], times: int = 1) -> Run:
    """Has an engine run a batch so many times."""
    pipe.send((noise, times))
    answer: Run = pipe.recv()
    return answer


def noise_of(rows: int) -> NDArray[np.float32]:
    """Noise float32 [rows, 100]."""
    return np.random.default_rng(rows).normal(size=(rows, NOISE_DIM)).astype(np.float32)


def compare_pixels(console: Console, pipes: dict[str, Any]) -> None:
    """Exits with 1 if the engines don't compute the same images, up to one level where rounding tips."""
    images = {name: ask(pipe, noise_of(256)).pixels.astype(int) for name, pipe in pipes.items()}
    for name, pixels in images.items():
        difference = np.abs(pixels - images[REFERENCE])
        console.print(f"{name}: {(difference > 0).sum()} of {difference.size} pixels differ, by {difference.max()}")
        if difference.max() > 1:
            raise typer.Exit(1)


def compare_speed(console: Console, pipes: dict[str, Any], sizes: list[int], rounds: int, seconds: float) -> None:
    """Prints what a batch takes in each engine, and as a multiple of what the exported graph takes."""
    table = Table("batch", "engine", "ms a batch", "× exported graph", "CPU ms a batch", "× exported graph")
    for size in sizes:
        noise = noise_of(size)
        times = {
            name: max(1, round(seconds / min(ask(pipe, noise).wall for _ in range(3)))) for name, pipe in pipes.items()
        }
        runs: dict[str, list[Run]] = {name: [] for name in pipes}
        for _ in track(range(rounds), f"batch {size}", console=console):
            for name in random.sample(list(pipes), len(pipes)):
                runs[name].append(ask(pipes[name], noise, times[name]))
        for name, each in runs.items():
            cells = []
            for clock in ("wall", "processor"):
                taken, reference = ([getattr(run, clock) for run in some] for some in (each, runs[REFERENCE]))
                cells += [f"{1000 * statistics.median(taken):.2f}", spread(taken, reference)]
            table.add_row(str(size), name, *cells)
        table.add_section()
    console.print(table)


if __name__ == "__main__":
    typer.run(main)
