"""Other libraries read what ``digitgan dataset`` writes, and convert the shipped models."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import pytest
import tensorflow as tf
from openvino.tools.ovc import convert_model

from serving.contract import GENERATOR, MODELS, SIGNATURE
from tests.serving.model_server.test_embedded import INPUTS
from tests.support.commands import LIMIT_S
from tests.support.pretrained import pretrained
from tests.support.processes import digitgan_up
from tests.training.test_export import outputs_of
from training.data import load

ROOT = Path(__file__).parents[2]
COUNT, TEST = 120, 40

pytestmark = pytest.mark.timeout(2 * LIMIT_S)  # pip installs PyTorch

READERS = {
    "torchvision MNIST": """
from torchvision.datasets import MNIST

assert len(MNIST(folder)) == 120
test = MNIST(folder, train=False)
x, y = [image for image, _ in test], [label for _, label in test]
""",
    "torchvision ImageFolder": """
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import Compose, Grayscale, PILToTensor

test = ImageFolder(f"{folder}/test", Compose([Grayscale(), PILToTensor()]))
((images, y),) = DataLoader(test, batch_size=40)
x = images[:, 0]
""",
    "pandas read_csv": """
import pandas

table = pandas.read_csv(f"{folder}/test.csv")
x, y = table.drop(columns="label").to_numpy(np.uint8).reshape(-1, 28, 28), table["label"]
""",
}
"""How a library reads the test digits of a dataset in ``folder``, as ``x``, uint8 [N, 28, 28], and ``y``."""
CODE = """
import sys
import numpy as np

folder, out = sys.argv[1:]
{}
np.savez(out, x=np.stack([np.asarray(one) for one in x]), y=np.asarray(y))
"""


def run(*command: str | Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=LIMIT_S, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a virtual environment with the wheel and its extra ``client``; libraries come beside it."""
    folder = tmp_path_factory.mktemp("installed")
    run(sys.executable, "-m", "venv", folder / "venv")
    python = folder / "venv" / "bin" / "python"
    run(python, "-m", "pip", "install", "build")
    run(python, "-m", "build", "--wheel", "--outdir", folder, ROOT)
    (wheel,) = folder.glob("digitgan-*.whl")
    run(python, "-m", "pip", "install", "--constraint", ROOT / "requirements.lock", f"{wheel}[client]")
    return python


@pytest.fixture(scope="module")
def datasets(python: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the dataset in each format."""
    folder = tmp_path_factory.mktemp("datasets")
    with digitgan_up() as (server, _):
        for name in ("idx", "png", "csv"):
            options = ("--count", str(COUNT), "--test", str(TEST), "--format", name, "--url", server.url)
            run(python.parent / "digitgan", "dataset", folder / name, *options)
    return folder


@pytest.mark.parametrize(("name", "format_"), list(zip(READERS, ("idx", "png", "csv"), strict=True)))
def test_a_library_reads_a_dataset(python: Path, datasets: Path, tmp_path: Path, name: str, format_: str) -> None:
    run(python, "-m", "pip", "install", name.split()[0])
    run(python, "-P", "-c", CODE.format(READERS[name]), datasets / format_, tmp_path / "read.npz")
    expected = load(datasets / "idx")
    x, y = expected.x_test, expected.y_test
    by_digit = np.argsort(y, kind="stable")  # an ImageFolder has the digits of a class together
    order = by_digit if format_ == "png" else np.arange(TEST)
    with np.load(tmp_path / "read.npz") as read:
        assert np.array_equal(read["y"], y[order])
        assert np.array_equal(read["x"], x[order])


@pytest.mark.filterwarnings("ignore:.*tf.lite.Interpreter is deprecated")
@pytest.mark.parametrize("name", MODELS)
def test_openvino_and_tflite_convert_it(name: str) -> None:
    """They are ordinary SavedModels. Pixels differ by one level at most, and everything else by rounding."""
    saved, wanted = str(pretrained(name)), MODELS[name].input.name
    inputs: dict[str, Any] = {wanted: INPUTS[wanted]}
    compiled = openvino.compile_model(convert_model(saved), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    converter = tf.lite.TFLiteConverter.from_saved_model(saved, signature_keys=[SIGNATURE])
    runner = tf.lite.Interpreter(model_content=converter.convert()).get_signature_runner(SIGNATURE)
    for key, expected in outputs_of(pretrained(name), **inputs).items():
        tolerance = 1 if name == GENERATOR else 1e-3 * np.abs(expected).max()
        for converted in (compiled(inputs), runner(**inputs)):
            np.testing.assert_allclose(np.float64(converted[key]), np.float64(expected), rtol=0, atol=tolerance)
