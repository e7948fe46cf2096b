"""The command line teaches, and tells mistakes in a sentence."""

import re
import subprocess
import sys
from functools import partial
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.support import commands

COMMANDS = (
    "up",
    "serve",
    "gateway",
    "key",
    "generate",
    "score",
    "dataset",
    "train",
    "export",
    "evaluate",
    "report",
    "train-classifier",
    "models",
)


digitgan = partial(commands.digitgan, check=False)


def test_the_version() -> None:
    assert digitgan("--version").stdout == f"digitgan {version('digitgan')}\n"


def test_help_lists_the_commands() -> None:
    listed = re.findall(r"^│ (\w[\w-]*)  ", digitgan("--help").stdout, re.MULTILINE)
    assert tuple(listed) == COMMANDS


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_and_option_explains_itself(command: str) -> None:
    done = digitgan(command, "--help")
    assert done.returncode == 0
    options = re.findall(r"^│ (?:\* +)?(--?\w[\w-]*)(.*)│$", done.stdout, re.MULTILINE)
    assert options
    for option, rest in options:
        assert re.search(r"[a-z]{3} ", rest) or re.search(r"[a-z]{3}", rest.replace(option, "")), option


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["serve", "--models", "a", "--config", "b"], "--models and --config"),
        (["serve", "--models", "NOWHERE"], "holds no models"),
        (["serve", "--config", "NOWHERE"], "NOWHERE"),
        (["gateway", "--port", "70000"], "DIGITGAN_PORT=70000"),
        (["gateway", "--model-server", "nonsense"], "DIGITGAN_MODEL_SERVER=nonsense"),
        (["up", "--models", "NOWHERE"], "holds no models"),
        (["export", "NOWHERE"], "holds no run"),
        (["evaluate", "NOWHERE"], "is no run directory"),
        (["evaluate", "NOWHERE", "--images", "3"], "--images"),
        (["train-classifier", "--data", "NOWHERE"], "does not exist"),
        (["export", "[bold]"], "[bold] holds no run"),
    ],
)
def test_a_mistake_is_told_in_a_sentence(tmp_path: Path, arguments: list[str], told: str) -> None:
    done = digitgan(*[str(tmp_path / "NOWHERE") if word == "NOWHERE" else word for word in arguments])
    assert done.returncode == 2
    assert told in done.stderr
    assert "Traceback" not in done.stderr


OWN_MODULES = ("api.py", "numpy.py", "queue.py", "serving/__init__.py", "signal.py")


@pytest.fixture
def own_modules(tmp_path: Path) -> Path:
    """A working directory with modules of the user's own, under names that this package and its libraries use."""
    for name in OWN_MODULES:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"raise RuntimeError('{name} of the user was imported')\n")
    return tmp_path


def test_a_service_starts_in_a_folder_with_modules_of_the_users_own(own_modules: Path) -> None:
    done = digitgan("generate", "--local", "--seed", "7", cwd=own_modules)
    assert done.returncode == 0, done.stderr
    assert "seed 7" in done.stdout


def test_the_client_takes_no_module_of_the_users_own_for_one_of_this_package(own_modules: Path) -> None:
    for name in ("numpy.py", "queue.py", "signal.py"):  # A program's own folder hides them from every library.
        (own_modules / name).unlink()
    code = "from digitgan import AsyncClient, Client; Client().close()"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=own_modules, timeout=commands.LIMIT_S
    )
    assert done.stderr == ""


def test_a_part_that_is_not_installed_is_told_with_the_way_to_install_it(tmp_path: Path) -> None:
    """A process that can't find TensorFlow, as in an installation of the gateway alone."""
    code = (
        "import importlib.machinery, sys\n"
        "find = importlib.machinery.PathFinder.find_spec\n"
        "importlib.machinery.PathFinder.find_spec = classmethod(\n"
        "    lambda cls, name, *rest: None if name == 'tensorflow' else find(name, *rest))\n"
        "sys.argv = ['digitgan', 'train']\n"
        "from digitgan.cli import main\n"
        "main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, timeout=commands.LIMIT_S
    )
    assert done.returncode == 2
    assert done.stderr.startswith("digitgan: this needs tensorflow, of the extra 'training'.")
    assert done.stderr.endswith("--editable '.[training]'\n")


def test_a_key_is_printed_with_the_entry_that_lets_it_in() -> None:
    from api.keys import hash_of, keys_of

    done = digitgan("key", "alice", "--images", "600")
    key, entry = (line.partition(" ")[2].strip() for line in done.stdout.splitlines())
    (known,) = keys_of(entry)
    assert (known.name, known.sha256.hex(), known.images_per_minute) == ("alice", hash_of(key), 600)
    refused = digitgan("key", "a b")
    assert refused.returncode == 2
    assert "is no name" in refused.stderr
