"""What every test shares: gateways with the package's models, with small and with faulty ones, and handwritten digits.

The model server is the ``tensorflow_model_server`` on the PATH if there is one, else the embedded server.
"""

import fcntl
import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from PIL import Image

from serving.pretrained import MODELS_DIR
from tests.support import gateways
from tests.support.gateways import FaultyClient, GatewayClient, faulty_gateway
from tests.support.misbehaving import MisbehavingServer
from tests.support.pictures import Handwritten, save_npz
from tests.support.processes import PROGRAM

LONGEST = ("test_run.py", "test_classifier.py", "test_evaluation.py", "test_step.py", "test_admission.py")
"""Files that begin first, so that no process is left with one of them at the end."""


def pytest_report_header() -> str:
    return f"model server: {PROGRAM}"


def pytest_configure() -> None:
    """Removes the user's settings. Lets SIGINT and SIGHUP end what tests start, which ``nohup`` and ``&`` prevent."""
    for name in [name for name in os.environ if name.startswith("DIGITGAN_")]:
        del os.environ[name]
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
def model_server(sockets: Path) -> Iterator[str]:
    """The address of the model server under test, with the models of the package."""
    with gateways.model_server(MODELS_DIR, sockets / "model-server.sock", PROGRAM):
        yield f"unix:{sockets}/model-server.sock"


@pytest.fixture(scope="session")
def http(model_server: str) -> Iterator[GatewayClient]:
    with gateways.serving(model_server, models_dir=MODELS_DIR) as client:
        yield client


def faulty_gateway_fixture(scope: Literal["module", "session"] = "module", /, **settings: object) -> Any:
    """Returns a fixture that gives a client of a gateway. A test decides what its model server answers."""

    @pytest.fixture(scope=scope)
    def client() -> Iterator[FaultyClient]:
        with faulty_gateway(**settings) as client:
            yield client

    return client


faulty = faulty_gateway_fixture("session")


@pytest.fixture(autouse=True)
def _honest_again() -> Iterator[None]:
    """After each test all model servers that misbehave are honest again."""
    yield
    for server in MisbehavingServer.running:
        server.reset()


def built_once(temporary: pytest.TempPathFactory, name: str, build: Callable[[Path], object]) -> Path:
    """Returns a directory that ``build`` fills in one of the processes of a test run; the others wait for it."""
    root = temporary.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:  # its parent belongs to the run
        root = root.parent
    path, partial = root / name, root / f"{name}.partial"
    with (root / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            build(partial)
            partial.rename(path)
    return path


@pytest.fixture(scope="session")
def small_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base directory with the small models of tests/support/saved_models.py."""
    from tests.support import saved_models

    return built_once(tmp_path_factory, "small-models", saved_models.save_all)


@pytest.fixture(scope="session")
def small_server(small_models: Path, sockets: Path) -> Iterator[str]:
    """The address of a model server with the small models."""
    with gateways.model_server(small_models, sockets / "small.sock", PROGRAM) as server:
        yield server.target


@pytest.fixture(scope="session")
def small_http(small_server: str) -> Iterator[GatewayClient]:
    """A client of a gateway in front of the small models."""
    with gateways.serving(small_server) as client:
        yield client


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
    return save_npz(tmp_path_factory.mktemp("data") / "digits.npz", handwritten)
