"""How fast does a GPU train, evaluate, publish and serve, and are its pixels those of the CPU?

    python -m benchmarks.gpu [--data mnist.npz]

Prints one table, in at most eight minutes: each phase has a time limit, and a phase that reaches it leaves out its
other rows. Without a GPU it measures the CPU, on fewer images and steps.
"""

import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Final

import numpy as np
import typer
from numpy.typing import NDArray
from rich import box
from rich.console import Console
from rich.table import Table

from digitgan.commands.training import import_tensorflow
from serving.contract import CLASSIFIER, DISCRIMINATOR, GENERATOR, IMAGES, NOISE, SIGNATURE
from serving.noise import noise_from_seeds
from tests.support.pretrained import pretrained
from training import data as datasets

Row = tuple[str, str, str]

LIMIT_S: Final = 465.0
"""For all phases; the training has what the others leave."""
STEPS_LIMIT_S: Final = 150.0
EVALUATE_LIMIT_S: Final = 30.0
SERVE_LIMIT_S: Final = 15.0
"""For each place."""
TIMED_S: Final = 4.0
RUN: Final = {
    True: "--steps 30000 --set evaluate_every=1000 --set checkpoint_every=10000 --mixed-precision --set xla=true",
    False: "--preset deck --steps 10 --set evaluate_every=10 --index-seeds 1024",
}
"""The options of digitgan train, with a GPU and without."""
TRAINING_IMAGES: Final = {True: 60_000, False: 3000}
EVALUATED: Final = 1000
SERVED: Final = 500


def run_process(seconds: float, *command: str | Path, **environment: str) -> tuple[str, str]:
    """Returns what a Python program printed, and why it failed: "" where it didn't."""
    inherited = {name: value for name, value in os.environ.items() if name != "NVIDIA_TF32_OVERRIDE"}
    try:
        done = subprocess.run(
            [sys.executable, *command], capture_output=True, env=inherited | environment, timeout=seconds
        )
    except subprocess.TimeoutExpired as error:
        return (error.stdout or b"").decode(), f"not finished within {seconds:.0f} s"
    last = (done.stderr.decode().strip().splitlines() or ["no message"])[-1]
    return done.stdout.decode(), f"exit status {done.returncode}: {last}" if done.returncode else ""


@contextmanager
def measured_utilisation() -> Iterator[list[float]]:
    """Puts the GPU's mean utilisation in the block, in percent, into the list that it yields: nothing without a GPU."""
    found: list[float] = []
    if not (program := shutil.which("nvidia-smi")):
        yield found
        return
    query = [program, "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "--loop-ms=100"]
    with subprocess.Popen(query, stdout=subprocess.PIPE, text=True) as process:
        yield found
        process.terminate()
        output, _ = process.communicate()
    if samples := [float(line) for line in output.split() if line.isdigit()]:
        found.append(float(np.mean(samples)))


def time_steps(data: Path) -> Iterator[Row]:
    """Times the training step of two presets in two kinds of arithmetic, on a GPU compiled by XLA; and one evaluation,
    as a run does it."""
    import_tensorflow()
    import tensorflow as tf

    from training import devices, job
    from training.evaluation.classifier import newest_classifier
    from training.gan.step import Trainer
    from training.run.selection import Validation

    strategy = devices.strategy()
    xla = bool(tf.config.list_physical_devices("GPU"))
    for arithmetic, preset in itertools.product(("bfloat16", "float32"), ("deck", "best")):
        settings = {"mixed_precision": arithmetic == "bfloat16", "xla": xla}
        config, dataset = job.resolve(Path("unused"), data, preset=preset, steps=1000, overrides=settings)
        start = time.perf_counter()
        trainer = Trainer(config, strategy)  # Its feature discriminators keep their initial weights.
        loop = trainer.loop(dataset.training[0])
        next(loop.run(0, [1]))
        first = time.perf_counter() - start
        calls, steps, start = 0, 0, time.perf_counter()
        with measured_utilisation() as utilisation:
            for call in loop.run(1, [sys.maxsize]):
                calls += 1
                steps += len(call)
                if time.perf_counter() > start + TIMED_S:
                    break
            took = time.perf_counter() - start
        yield (
            "training step",
            f"{preset}, {arithmetic}{', XLA' if xla else ''}",
            f"{1000 * took / steps:.3g} ms; the first after {first:.1f} s; {steps / calls:.3g} steps a call"
            + "".join(f"; GPU {share:.0f} % busy" for share in utilisation),
        )
    validation = Validation(dataset, newest_classifier())
    start = time.perf_counter()
    validation.figures(trainer.averaged_generator())
    yield "evaluation", f"during a run, {len(dataset.validation[0]):,} images", f"{time.perf_counter() - start:.1f} s"


def train_and_evaluate(data: Path, run: Path, options: str, limit: float) -> Iterator[Row]:
    """Trains, publishes and evaluates by the commands that users run."""
    digitgan = ("-m", "digitgan")
    start = time.time()
    _, failure = run_process(limit, *digitgan, "train", *options.split(), "--data", data, "--run", run)
    card = run / "models" / GENERATOR / "1/model.json"
    how = f"digitgan train {options}"
    if failure and not card.exists():
        yield "publication", how, failure
        return
    difference = json.loads(card.read_text())["export"]["greatest_difference_from_network"]
    took = f"{card.stat().st_mtime - start:.0f} s from the start to the published version"
    yield "publication", how, f"{took}; {difference:.3f} levels from the network"
    start = time.time()
    _, failure = run_process(EVALUATE_LIMIT_S, *digitgan, "evaluate", run, "--data", data, "--images", str(EVALUATED))
    yield "evaluation", f"digitgan evaluate, {EVALUATED:,} images", failure or f"{time.time() - start:.0f} s"


def serve(models: Path, folder: Path, images: NDArray[np.uint8], has_gpu: bool) -> Iterator[Row]:
    """Runs the models as TensorFlow Serving loads them, and compares a GPU's answers with the CPU's."""
    np.save(folder / f"{NOISE}.npy", noise_from_seeds(range(SERVED)))
    np.save(folder / f"{IMAGES}.npy", images[:SERVED, ..., None])
    served = {"generator in the package": (pretrained(GENERATOR), NOISE)} | {
        f"trained {name}": (models / name / "1", NOISE if name == GENERATOR else IMAGES)
        for name in (GENERATOR, DISCRIMINATOR, CLASSIFIER)
    }
    requests = {
        key: (str(version), SIGNATURE, name, str(folder / f"{name}.npy"))
        for key, (version, name) in served.items()
        if version.exists()
    }
    (folder / "requests.json").write_text(json.dumps(requests))
    places = {"CPU": {"CUDA_VISIBLE_DEVICES": "-1"}}
    if has_gpu:
        places |= {"GPU": {"NVIDIA_TF32_OVERRIDE": "0"}, "GPU with TF32": {}}
    command = ("-m", "benchmarks.gpu")
    expected: Mapping[str, NDArray[Any]] | None = None
    for place, environment in places.items():
        start = time.perf_counter()
        answers = folder / f"{place}.npz"
        options = ("--requests", folder, "--answers", answers)
        _, failure = run_process(SERVE_LIMIT_S, *command, *options, TF_FORCE_GPU_ALLOW_GROWTH="true", **environment)
        took = f"{time.perf_counter() - start:.1f} s"
        yield "serving", f"{place}: start, load, {SERVED} rows of {len(requests)} models", failure or took
        if failure:
            continue
        found = dict(np.load(answers))
        expected = expected or found
        for key in expected if found is not expected else ():
            difference = np.abs(found[key].astype(np.float64) - expected[key])
            share = f"{(difference > 0).mean():.4%} of the pixels differ, by " if found[key].dtype == np.uint8 else ""
            yield "against the CPU", f"{place}: {key}", f"{share}{difference.max():.3g} at most"


def answer(folder: Path, answers: Path) -> None:
    """Runs the SavedModels of ``folder/requests.json`` in sessions, as TensorFlow Serving does.

    The requests are a directory, a signature, the name of its input and a file of rows, by the key of the answers.
    """
    import_tensorflow()
    import tensorflow as tf

    found: dict[str, NDArray[Any]] = {}
    for key, (directory, signature, name, rows) in json.loads((folder / "requests.json").read_text()).items():
        first, *others = np.split(np.load(rows), [1, 9])
        with tf.compat.v1.Session(graph=tf.Graph()) as session:
            loaded = tf.compat.v1.saved_model.load(session, ["serve"], directory).signature_def[signature]
            fetches = {output: info.name for output, info in loaded.outputs.items()}
            parts = [session.run(fetches, {loaded.inputs[name].name: part}) for part in (first, *others)]
        found |= {f"{key}/{output}": np.concatenate([part[output] for part in parts]) for output in fetches}
    np.savez(answers, **found)  # type: ignore[arg-type] # numpy's stubs see allow_pickle


def main(
    data: Annotated[Path | None, typer.Option(help="As for digitgan train.")] = None,
    steps_on: Annotated[Path | None, typer.Option(hidden=True)] = None,
    requests: Annotated[Path | None, typer.Option(hidden=True)] = None,
    answers: Annotated[Path | None, typer.Option(hidden=True)] = None,
) -> None:
    """Measures training, evaluation, publication and serving, and prints one table."""
    if requests and answers:
        answer(requests, answers)
        return
    if steps_on:
        for row in time_steps(steps_on):
            print(json.dumps(row), flush=True)
        return
    began = time.monotonic()
    import_tensorflow()
    import tensorflow as tf

    from training import devices

    has_gpu = bool(tf.config.list_physical_devices("GPU"))
    table = Table("phase", "how", "measured", box=box.MARKDOWN)
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        dataset = datasets.load(data)
        images, labels = (each[: TRAINING_IMAGES[has_gpu]] for each in (dataset.x_train, dataset.y_train))
        x_test, y_test = dataset.x_test[: len(images)], dataset.y_test[: len(images)]
        np.savez(folder / "digits.npz", x_train=images, y_train=labels, x_test=x_test, y_test=y_test)

        def rows() -> Iterator[Row]:
            yield "device", f"TensorFlow {tf.__version__}", ("" if has_gpu else "no GPU; ") + devices.describe()
            yield "data", dataset.source, f"{len(images):,} training images"
            output, failure = run_process(STEPS_LIMIT_S, "-m", "benchmarks.gpu", "--steps-on", folder / "digits.npz")
            yield from map(json.loads, output.splitlines())
            if failure:
                yield "training step", "the other rows", failure
            limit = LIMIT_S - (time.monotonic() - began) - EVALUATE_LIMIT_S - SERVE_LIMIT_S * (3 if has_gpu else 1)
            yield from train_and_evaluate(folder / "digits.npz", folder / "run", RUN[has_gpu], limit)
            yield from serve(folder / "run/models", folder, dataset.x_test, has_gpu)

        for row in rows():
            Console(stderr=True).print(*row, sep=" | ")
            table.add_row(*row)
    table.add_row("all", "", f"{time.monotonic() - began:.0f} s")
    Console(width=160).print(table)


if __name__ == "__main__":
    typer.run(main)
