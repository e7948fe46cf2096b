"""What the peers run in: a virtual environment each, with pinned versions, and the generator as ONNX.

All of that goes into CACHE, which git ignores, and is made once.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from benchmarks.peers.model import weights
from serving.contract import GENERATOR
from serving.pretrained import MODELS_DIR
from serving.storage import newest_version

HERE: Final = Path(__file__).parent
CACHE: Final = HERE.parent.parent / ".bench"


def python_of(peer: str, console: Console) -> Path:
    """Returns the Python of a peer's environment. Makes it where there is none, or the requirements have changed."""
    requirements = HERE / peer / "requirements.txt"
    directory = CACHE / peer
    done = directory / "requirements.txt"
    if not done.is_file() or done.read_text() != requirements.read_text():
        console.print(f"Making the environment of {peer} in {directory}")
        subprocess.run([sys.executable, "-m", "venv", "--clear", directory], check=True)
        pip: list[str | Path] = [directory / "bin/python", "-m", "pip", "install"]
        subprocess.run([*pip, "--quiet", "--disable-pip-version-check", "--requirement", requirements], check=True)
        shutil.copyfile(requirements, done)
    return directory / "bin/python"


def onnx_generator(console: Console) -> Path:
    """Returns the path of the ONNX model of the package's newest generator."""
    version = newest_version(MODELS_DIR / GENERATOR)
    assert version
    digest = hashlib.sha256((version / "saved_model.pb").read_bytes()).hexdigest()[:16]
    target = CACHE / f"generator-{digest}.onnx"
    if not target.is_file():
        python = python_of("export", console)
        console.print(f"Writing the plain network as {target}")
        taken = CACHE / "weights.npz"
        np.savez(taken, **weights(version))  # type: ignore[arg-type] # numpy's stubs see allow_pickle
        partial = target.with_suffix(".partial")
        subprocess.run([python, HERE / "export/plain_network.py", taken, partial], check=True)
        partial.replace(target)
        taken.unlink()
    return target


def reference_pixels(seeds: Sequence[int], console: Console) -> NDArray[np.uint8]:
    """Returns what the peers' common part makes of these seeds: uint8 [N, 28, 28, 1]."""
    script = "import sys, numpy; from generator import Generator; "
    script += "numpy.save(sys.argv[1], Generator().images([int(seed) for seed in sys.argv[2:]]))"
    environment = os.environ | {"GENERATOR_ONNX": str(onnx_generator(console)), "PYTHONPATH": str(HERE / "shared")}
    target = CACHE / "reference.npy"
    subprocess.run([python_of("fastapi", console), "-c", script, target, *map(str, seeds)], env=environment, check=True)
    pixels: NDArray[np.uint8] = np.load(target)
    return pixels
