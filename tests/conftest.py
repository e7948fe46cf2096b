"""What every test shares: a place for sockets, and handwritten digits."""

import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.pictures import Handwritten

pytest_plugins = ["tests.support.servers"]

LONGEST = ("test_run.py", "test_classifier.py", "test_evaluation.py", "test_step.py", "test_admission.py")
"""Files that begin first, so that no process is left with one of them at the end."""


def pytest_configure() -> None:
    """Lets SIGINT and SIGHUP end the processes that tests start: under ``nohup`` or ``&`` they would ignore them."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.name not in LONGEST)


def pytest_make_parametrize_id(val: object) -> str | None:
    """Names bytes by their length: a compressed file holds the time, and all processes must name a test alike."""
    return f"{len(val)} bytes" if isinstance(val, bytes) else None


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def sockets() -> Iterator[Path]:
    """A directory with a short path: the path of a Unix socket may have 107 characters."""
    with tempfile.TemporaryDirectory(prefix="digitgan-") as directory:
        yield Path(directory)


@pytest.fixture(scope="session")
def handwritten() -> Handwritten:
    """1,797 real handwritten digits: scikit-learn's 8×8 ones, enlarged to 20×20 in a 28×28 frame, as MNIST's are."""
    from sklearn.datasets import load_digits

    small = load_digits()
    images = np.zeros((len(small.images), 28, 28), np.uint8)
    for image, digit in zip(images, small.images, strict=True):
        ink = Image.fromarray((digit * (255 / 16)).astype(np.uint8))
        image[4:24, 4:24] = np.asarray(ink.resize((20, 20), Image.Resampling.BICUBIC))
    return images, small.target.astype(np.uint8)


@pytest.fixture(scope="session")
def digits_npz(handwritten: Handwritten, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The handwritten digits as Keras lays MNIST out: 1,500 to train on, 297 to test on."""
    images, labels = handwritten
    path = tmp_path_factory.mktemp("data") / "digits.npz"
    np.savez(path, x_train=images[:1500], y_train=labels[:1500], x_test=images[1500:], y_test=labels[1500:])
    return path
