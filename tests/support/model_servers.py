"""The model server that the tests run on: TensorFlow Serving or the embedded server.

    pytest                                        tensorflow_model_server if it is on the PATH, else the embedded server
    pytest --model-server=/usr/bin/tensorflow_model_server
    pytest --model-server=embedded

The option changes the PATH of the test run, so ``digitgan up`` starts the same server as the tests do. This module is a
pytest plugin, because only plugins may add options.
"""

import os
import shutil
import tempfile
from pathlib import Path
from typing import Final

import pytest

from digitgan.supervisor import TENSORFLOW_MODEL_SERVER
from tests.support.processes import EMBEDDED

_DIRECTORY: Final = pytest.StashKey[tempfile.TemporaryDirectory[str]]()


@pytest.fixture(scope="session")
def program() -> str:
    """The model server under test: EMBEDDED, or a program's path."""
    return _program()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--model-server",
        metavar="PROGRAM",
        help=f"the model server under test: a {TENSORFLOW_MODEL_SERVER}'s path, or '{EMBEDDED}'. Default: the "
        f"{TENSORFLOW_MODEL_SERVER} on the PATH if there is one, else '{EMBEDDED}'",
    )


def pytest_configure(config: pytest.Config) -> None:
    if option := config.getoption("--model-server"):
        directory = config.stash[_DIRECTORY] = tempfile.TemporaryDirectory(prefix="path-")
        os.environ["PATH"] = _path_for(option, Path(directory.name))


def pytest_unconfigure(config: pytest.Config) -> None:
    if directory := config.stash.get(_DIRECTORY, None):
        directory.cleanup()


def pytest_report_header() -> str:
    return f"model server: {_program()}"


def _program() -> str:
    return shutil.which(TENSORFLOW_MODEL_SERVER) or EMBEDDED


def _path_for(option: str, directory: Path) -> str:
    """Returns a PATH on which the model server of ``option`` is found first; for EMBEDDED, none is found."""
    if option == EMBEDDED:
        folders = enumerate(os.get_exec_path())
        return os.pathsep.join(_without_model_server(folder, directory / str(number)) for number, folder in folders)
    found = shutil.which(option)
    if found is None:
        raise pytest.UsageError(f"--model-server={option} is not a program: give its path, or '{EMBEDDED}'")
    (directory / TENSORFLOW_MODEL_SERVER).symlink_to(Path(found).absolute())
    return os.pathsep.join([str(directory), *os.get_exec_path()])


def _without_model_server(folder: str, links: Path) -> str:
    """Returns ``folder``, or, if it has a model server, the directory ``links``, with links to all else in it."""
    if shutil.which(TENSORFLOW_MODEL_SERVER, path=folder) is None:
        return folder
    links.mkdir()
    for other in Path(folder).absolute().iterdir():
        if other.name != TENSORFLOW_MODEL_SERVER:
            (links / other.name).symlink_to(other)
    return str(links)
