"""What is each step from the trained generator to the exported graph worth?

    python -m benchmarks.inference_graph

Every step is a SavedModel, run as the embedded model server runs it, one after the other in random order, so that
whatever else the machine does slows all alike. On a machine that does other work, --threads 1 and the processor time
are what to look at. The exported graph's pixels are compared with the Keras network's before anything is timed.
"""

import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.spread import spread
from serving.contract import IMAGES, NOISE, NOISE_DIM, PIXEL_SCALE, SIGNATURE
from serving.model_server.saved_model import load
from serving.quiet import quiet_tensorflow_import

REFERENCE = "Keras's export"
EXPORTED = "+ positions first from the start = exported"
LEFT = "left: 64-channel layer in the frequency domain too"


def modules(generator: Any) -> dict[str, Any]:
    """Returns the steps after Keras's own export, each with all that came before it."""
    import tensorflow as tf

    from training.convolution import split_phases
    from training.inference.generator import NOISE_SPEC, SIDE, GeneratorWeights, generator_module, sub_pixel, to_pixels
    from training.inference.module import InferenceModule
    from training.inference.spectral import SpectralConvolution
    from training.networks import LEAK

    weights = GeneratorWeights.of(generator)
    (dense, dense_bias), (first, first_bias), (second, second_bias), last = (
        weights.dense,
        weights.first,
        weights.second,
        weights.last,
    )

    second_kernel, last_kernel = sub_pixel(second), sub_pixel(last)
    turned = first[::-1, ::-1].swapaxes(2, 3).astype(np.float32)
    second_phases: NDArray[np.float64] = split_phases(tf.constant(second)).numpy()

    def convolution(x: Any, kernel: NDArray[np.float32]) -> Any:
        return tf.nn.conv2d(x, kernel, strides=1, padding="SAME")

    def activate(x: Any, bias: NDArray[np.float64]) -> Any:
        return tf.nn.leaky_relu(tf.nn.bias_add(x, np.float32(bias)), LEAK)

    def images_first(maps: Any) -> Any:
        return tf.reshape(tf.transpose(maps, [1, 0, 2]), [-1, SIDE, SIDE, maps.shape[2]])

    def positions_first(maps: Any) -> Any:
        return tf.transpose(tf.reshape(maps, [-1, SIDE**2, maps.shape[3]]), [1, 0, 2])

    def start(noise: Any) -> Any:
        return tf.reshape(activate(tf.matmul(noise, np.float32(dense)), dense_bias), [-1, SIDE, SIDE, first.shape[3]])

    def sub_pixel_end(x: Any) -> Any:
        x = convolution(tf.nn.depth_to_space(x, 2), last_kernel)
        return {IMAGES: to_pixels(tf.nn.depth_to_space(x, 2))}

    def folded(noise: Any) -> Any:
        n = tf.shape(noise)[0]
        x = activate(convolution(start(noise), turned), first_bias)
        x = activate(tf.nn.conv2d_transpose(x, np.float32(second), [n, 14, 14, 64], 2), second_bias)
        return {IMAGES: to_pixels(tf.nn.conv2d_transpose(x, np.float32(last), [n, 28, 28, 1], 2))}

    def both_sub_pixel(noise: Any) -> Any:
        x = activate(convolution(start(noise), turned), first_bias)
        return sub_pixel_end(activate(convolution(x, second_kernel), np.tile(second_bias, 4)))

    def first_spectral(noise: Any) -> Any:
        x = images_first(activate(spectral[0](positions_first(start(noise))), first_bias))
        return sub_pixel_end(activate(convolution(x, second_kernel), np.tile(second_bias, 4)))

    def both_spectral(noise: Any) -> Any:
        x = activate(spectral[0](positions_first(start(noise))), first_bias)
        return sub_pixel_end(images_first(activate(spectral[1](x), np.tile(second_bias, 4))))

    spectral = [SpectralConvolution(kernel, SIDE, transposed=True) for kernel in (first, second_phases)]
    spectra = [each.spectra for each in spectral]
    graphs = {
        "normalisation folded, weights constant": (folded, []),
        "+ stride 2 as sub-pixel convolutions": (both_sub_pixel, []),
        "+ 7×7 layer in the frequency domain": (first_spectral, spectra[:1]),
        LEFT: (both_spectral, spectra),
    }
    steps = {
        name: InferenceModule({SIGNATURE: tf.function(graph, input_signature=[NOISE_SPEC])}, parts)
        for name, (graph, parts) in graphs.items()
    }
    return {**steps, EXPORTED: generator_module(generator)}


def compare_pixels(console: Console, generator: Any, name: str, run: Callable[[Any], Any], images: int) -> int:
    """Prints how far a graph's pixels are from the Keras network's, and returns the greatest difference in levels."""
    differing = largest = 0
    furthest = 0.0
    for seed in track(range(images // 250), "pixels", console=console):
        noise = np.random.default_rng(seed).normal(size=(250, NOISE_DIM)).astype(np.float32)
        exact = np.asarray(generator(noise, training=False), np.float64) * PIXEL_SCALE + PIXEL_SCALE
        pixels = run(noise)
        difference = np.abs(pixels - np.clip(exact, 0, 255).round())
        differing, largest = differing + int((difference > 0).sum()), max(largest, int(difference.max()))
        furthest = max(furthest, float(np.abs(pixels - exact).max()))
    console.print(
        f"{name}, {images:,} noises: {differing} of {images * 784:,} pixels differ from the Keras network's, by "
        f"{largest}; none is further than {furthest:.4f} from its unrounded value"
    )
    return largest


def main(
    sizes: Annotated[str, typer.Option(help="Batch sizes, separated by commas.")] = "1,8,64,256",
    rounds: Annotated[int, typer.Option(help="Timed rounds at each size.", min=3)] = 12,
    seconds: Annotated[float, typer.Option(help="About how long each step runs in a round.")] = 0.1,
    threads: Annotated[int, typer.Option(help="The engine's threads; 0: as many as CPUs.", min=0)] = 0,
    images: Annotated[int, typer.Option(help="How many images to compare.", min=250)] = 10_000,
) -> None:
    """Times the generator after each step of its layout, side by side."""
    console = Console()
    with quiet_tensorflow_import():
        import tensorflow as tf

        from benchmarks.plain_exports import example_generator, save_keras
    generator = example_generator()

    def runner(path: Path) -> Callable[[Any], Any]:
        model = load(path, threads)
        return lambda noise: model.run(SIGNATURE, {NOISE: noise})[IMAGES]

    runs: dict[str, Callable[[Any], Any]] = {}
    with tempfile.TemporaryDirectory() as directory:
        base = Path(directory)
        save_keras(generator, base / REFERENCE)
        for name, module in modules(generator).items():
            tf.saved_model.save(module, str(base / name), signatures=dict(module.graphs))
        for path in sorted(base.iterdir(), key=lambda path: path.stat().st_mtime):
            runs[path.name] = runner(path)
            size = (path / "saved_model.pb").stat().st_size
            console.print(f"{path.name}: saved_model.pb of {size / 1e6:.1f} MB")
    if compare_pixels(console, generator, EXPORTED, runs[EXPORTED], images) > 1:
        raise typer.Exit(1)

    table = Table("batch", "step", "ms a batch", "times as fast", "CPU ms a batch", "times as fast")
    for rows in map(int, sizes.split(",")):
        noise = np.random.default_rng(rows).normal(size=(rows, NOISE_DIM)).astype(np.float32)
        taken: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
        times = max(1, round(seconds / min(timed(runs[REFERENCE], noise, 1)[0] for _ in range(3))))
        for turn in track(range(-2, rounds), f"batch {rows}", console=console):
            for name in random.sample(list(runs), len(runs)):
                each = timed(runs[name], noise, times)
                if turn >= 0:  # the first ones warm up
                    taken[name].append(each)
        for name, turns in taken.items():
            cells = []
            for ours, theirs in zip(zip(*turns, strict=True), zip(*taken[REFERENCE], strict=True), strict=True):
                cells += [f"{1000 * statistics.median(ours):.2f}", spread(theirs, ours)]
            table.add_row(str(rows), name, *cells)
        table.add_section()
    console.print(table)


def timed(run: Callable[[Any], Any], noise: NDArray[np.float32], times: int) -> tuple[float, float]:
    """Returns what a run takes, in seconds by the clock and in processor seconds."""
    wall, processor = time.perf_counter(), time.process_time()
    for _ in range(times):
        run(noise)
    return (time.perf_counter() - wall) / times, (time.process_time() - processor) / times


if __name__ == "__main__":
    typer.run(main)
