"""The command line teaches, and reports a mistake in a sentence."""

import re
import shlex
import shutil
import socket
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from digitgan.cli import app
from serving.pretrained import MODELS_DIR
from tests.support.commands import digitgan, python

COMMANDS = tuple(typer.main.get_command(app).commands)  # type: ignore[attr-defined]


def test_it_tells_its_version_and_its_commands() -> None:
    assert digitgan("--version").stdout == f"digitgan {version('digitgan')}\n"
    listed = re.findall(r"^│ (\w[\w-]*)  ", CliRunner().invoke(app, ["--help"]).stdout, re.MULTILINE)
    assert tuple(listed) == COMMANDS


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_and_option_explains_itself(command: str) -> None:
    done = CliRunner().invoke(app, [command, "--help"], prog_name="digitgan")
    assert done.exit_code == 0
    options = re.findall(r"^│ (?:\* +)?(--?\w[\w-]*)(.*)│$", done.stdout, re.MULTILINE)
    assert options
    *_, first, second = (line.strip() for line in done.stdout.splitlines() if line.strip())
    if command != "models":
        assert all(f"digitgan {command} " in f"{line} " for line in (first, second)), done.stdout
    for option, rest in options:
        assert re.search(r"[a-z]{3} ", rest) or re.search(r"[a-z]{3}", rest.replace(option, "")), option


NO_GATEWAY = ("--url", "http://127.0.0.1:9")
MISTAKES: tuple[tuple[list[str], str], ...] = (
    (["serve", "--models", "a", "--config", "b"], "--models and --config"),
    (["serve", "--port", "0", "--models", "NOWHERE"], "holds no models"),
    (["serve", "--port", "0", "--config", "NOWHERE"], "NOWHERE"),
    (["gateway", "--port", "70000"], "'--port'"),
    (["gateway", "--model-server", "nonsense"], "DIGITGAN_MODEL_SERVER=nonsense"),
    (["up", "--host", "192.0.2.1"], "cannot listen on 192.0.2.1:8000"),
    (["up", "--port", "0", "--models", "NOWHERE"], "holds no models"),
    (["generate", "--seed", "7", "--out", "NOWHERE/7.png"], "No such file or directory"),
    (["generate", "--seed", "1", "--count", "2"], "--seed and --count"),
    (["generate", "--seed", "1", "--digit", "2"], "--digit and --curated go with --count"),
    (["generate", "--seed", "9-1"], "--seed 9-1"),
    (["generate", "--seed", "0-" + "9" * 20], "should be a seed"),
    (["generate", "--scale", "2"], "--scale is for files"),
    (["generate", "--count", "3", *NO_GATEWAY], "digitgan up"),
    (["score", "NOWHERE"], "NOWHERE does not exist"),
    (["dataset", "/dev/null/digits"], "/dev/null/digits.partial: Not a directory"),
    (["dataset", "."], "name a folder in it"),
    (["dataset", "out", "--url", "http://[::1"], "'http://[::1' is no address"),
    (["dataset", "out", "--count", "0"], "'--count'"),
    (["dataset", "out", "--models", "m", *NO_GATEWAY], "--url (or DIGITGAN_URL) and --models"),
    (["dataset", "out", "--count", "9", *NO_GATEWAY], "can't be reached"),
    (["models", "add", "NOWHERE"], "holds no models"),
    (["models", "list"], "models is no folder: name the base directory"),
    (["key", "a b"], "is no name"),
    *(([command, "--data", "NOWHERE"], "does not exist") for command in ("train", "train-classifier")),
    (["train", "--steps", "0"], "--steps must be at least 1"),
    (["train", "--steps", "3", "--epochs", "1"], "--epochs and --steps"),
    (["train", "--epochs", "inf"], "--epochs must be positive"),
    (["train", "--preset", "none"], "--preset must be one of deck, dcgan, best"),
    (["train", "--resume"], "there is no run in runs/ yet"),
    *((["train", "--set", f"{name}=inf"], f"{name} must be") for name in ("dropout", "generator_learning_rate")),
    (["train", "--set", "steps=3"], "there is no setting steps; the settings are batch_size, "),
    (["train", "--set", "dropout"], "dropout must be a number"),
    (["train", "--set", "batch_size=1.5"], "batch_size must be an integer"),
    (["train", "--set", "xla=yes"], "xla must be true or false"),
    *(([command, "[bold]"], "[bold] holds no run") for command in ("export", "report")),
    (["train-classifier", "--seed", "-1"], "'--seed'"),
    (["evaluate", "NOWHERE"], "holds no generator/<version>"),
    (["evaluate", "NOWHERE", "--images", "3"], "--images"),
    (["evaluate", str(MODELS_DIR), "--data", "NOWHERE"], "does not exist"),
)


@pytest.mark.parametrize(("arguments", "message"), MISTAKES, ids=[" ".join(arguments) for arguments, _ in MISTAKES])
def test_a_mistake_is_a_sentence_before_slow_imports(tmp_path: Path, arguments: list[str], message: str) -> None:
    heavy = {"keras", "matplotlib", "openvino", "sklearn", "tensorflow"}
    code = f"import atexit, sys; atexit.register(lambda: print(*{heavy} & sys.modules.keys()))"
    given = [word.replace("NOWHERE", str(tmp_path / "nowhere")) for word in arguments]
    done = python(f"{code}; from digitgan.cli import main; main()", *given, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "\n"), done.stderr
    assert message.replace("NOWHERE", "nowhere") in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", ["up", "gateway", "serve"])
def test_a_port_in_use_is_told_before_anything_loads(command: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        done = digitgan(command, "--port", port, status=2)
    assert done.stdout == ""
    assert done.stderr == (
        f"digitgan: cannot listen on 127.0.0.1:{port}: Address already in use. On a free port of this machine: "
        f"digitgan {command} --host 127.0.0.1 --port 0\n"
    )


def test_no_module_of_the_users_own_is_taken_for_one_of_this_package_or_its_libraries(tmp_path: Path) -> None:
    for name in ("api.py", "numpy.py", "queue.py", "serving/__init__.py", "signal.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"raise RuntimeError('{name} of the user was imported')\n")
    assert "seed 7" in digitgan("generate", "--local", "--seed", "7", cwd=tmp_path).stdout
    for name in ("numpy.py", "queue.py", "signal.py"):  # A program's own folder hides them from every library.
        (tmp_path / name).unlink()
    assert python("from digitgan import AsyncClient, Client; Client().close()", cwd=tmp_path).stderr == ""


def test_a_part_that_is_not_installed_is_told_with_the_way_to_install_it(tmp_path: Path) -> None:
    code = "import sys; sys.modules['tensorflow'] = None; from digitgan.cli import main; main()"
    done = python(code, "train", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == (
        "digitgan: this needs tensorflow. Install the extra 'training', in the folder of the source: "
        f"{sys.executable} -m pip install --constraint requirements.lock '.[training]'\n"
    )


def test_models_commands_say_how_to_make_a_models_config(tmp_path: Path) -> None:
    shutil.copytree(MODELS_DIR / "classifier", tmp_path / "classifier")
    done = digitgan("models", "list", "--models", ".", status=2, cwd=tmp_path)
    command = done.stderr.strip().partition("make one with: digitgan ")[2]
    digitgan(*shlex.split(command))
    assert f'base_path: "{tmp_path}/classifier"' in (tmp_path / "models.config").read_text()
    assert "stable" in digitgan("models", "list", "--models", ".", cwd=tmp_path).stdout


def test_make_train_takes_a_path_with_blanks_and_quotes(tmp_path: Path) -> None:
    missing = tmp_path / "my brother's digits.npz"
    options = ("--old-file", ".venv/.dev", f"BIN={Path(sys.executable).parent}", f"DATA={missing}")
    root = Path(__file__).parents[2]
    done = subprocess.run(["make", *options, "train"], cwd=root, capture_output=True, text=True, check=False)
    assert f"{missing} does not exist" in done.stderr
