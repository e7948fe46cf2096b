"""How models reach the pods, and what pods wait for: the manifests' own commands, as processes on this machine."""

import json
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import pytest

from serving.contract import MODELS
from serving.pretrained import MODELS_DIR
from serving.storage import find_versions
from serving.tf_serving.server_config import MODELS_CONFIG
from tests.kubernetes.rendering import (
    ROOT,
    Manifest,
    container,
    find,
    overlay,
    pod_of,
    render,
)
from tests.support.processes import ServerProcess

SIGTERM_STATUS: Final = 143
VERSION_1: Final = {name: {1} for name in MODELS}


def versions(directory: Path) -> dict[str, set[int]]:
    return {name: set(find_versions(directory / name)) for name in MODELS}


def places(one: Manifest, volumes: Path) -> dict[str, Path]:
    """Returns a directory for each place where a container mounts a volume."""
    found = {mount["mountPath"]: volumes / mount["name"] for mount in one["volumeMounts"]}
    for directory in found.values():
        directory.mkdir(parents=True, exist_ok=True)
    return found


def here(words: list[str], found: Mapping[str, Path]) -> list[str]:
    """Returns a command with the directories ``found`` in place of those of a container."""
    known = re.compile(rf"(?<!\w)({'|'.join(found)})(?=[/\"]|$)")
    return [known.sub(lambda place: str(found[place[0]]), word) for word in words]


def copy_from_image(one: Manifest, volumes: Path, image: Path = MODELS_DIR) -> None:
    """Runs a container of the image digitgan/models. ``image``: the models in the image."""
    stage = (ROOT / "Dockerfile").read_text().partition("FROM scratch AS models")[2]
    found = re.search(r"^ENTRYPOINT (.*)$", stage, re.MULTILINE)
    assert found
    program: list[str] = json.loads(found[1])
    assert program[-1] == "/models/."
    assert "/models" not in [mount["mountPath"] for mount in one["volumeMounts"]], "it hides the image's models"
    subprocess.run([*program[:-1], f"{image}/.", *here(one["args"], places(one, volumes))], check=True)


def roll_out(volumes: Path, image: Path = MODELS_DIR) -> subprocess.CompletedProcess[str]:
    """Runs both init containers of the Deployment roll-out."""
    copy, add = (container(render("model-volume"), "Deployment", "roll-out", name) for name in ("image", "models"))
    copy_from_image(copy, volumes, image)
    command = [sys.executable, "-m", "digitgan", *here(add["args"], places(add, volumes))]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.mark.parametrize("workload", ["gateway", "model-server"])
def test_the_models_arrive_in_the_base(workload: str, tmp_path: Path) -> None:
    copy_from_image(container(render(), "Deployment", workload, "models"), tmp_path)
    assert versions(tmp_path / "models") == VERSION_1


def test_roll_out_copies_what_is_missing_and_keeps_the_labels(tmp_path: Path) -> None:
    volume = tmp_path / "models"
    done = roll_out(tmp_path)
    assert done.returncode == 0, done.stderr
    assert versions(volume) == VERSION_1
    assert "stable" in (volume / MODELS_CONFIG).read_text()
    # A later release: what is there stays, to the byte.
    image = tmp_path / "later"
    shutil.copytree(MODELS_DIR, image)
    shutil.copytree(image / "generator" / "1", image / "generator" / "2")
    (volume / MODELS_CONFIG).write_text((volume / MODELS_CONFIG).read_text() + "# promoted\n")
    config = (volume / MODELS_CONFIG).read_bytes()
    done = roll_out(tmp_path, image)
    assert done.returncode == 0, done.stderr
    assert versions(volume) == VERSION_1 | {"generator": {1, 2}}
    assert (volume / MODELS_CONFIG).read_bytes() == config


def test_a_release_without_models_fails(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = roll_out(tmp_path, tmp_path / "empty")
    assert done.returncode != 0
    assert "holds no models" in done.stderr


def test_a_new_tag_can_be_applied_and_copies_again() -> None:
    """The template of a Job cannot be changed, and a bare pod cannot be drained."""
    copying = [one["kind"] for one in overlay("production") if "digitgan/models" in str(pod_of(one))]
    assert copying == ["Deployment"]


WAITING: Final = (
    ("production", "Deployment", "model-server", f"/models/{MODELS_CONFIG}"),
    ("training", "Job", "train", "/data/mnist.npz"),
    ("training-workers", "Job", "train-workers", "/data/mnist.npz"),
)


@pytest.mark.parametrize(("name", "kind", "workload", "file"), WAITING)
def test_a_pod_waits_for_its_file(name: str, kind: str, workload: str, file: str, tmp_path: Path) -> None:
    wait = container(overlay(name), kind, workload, "wait")
    volume = places(wait, tmp_path)
    with ServerProcess(*here(wait["command"], volume)[1:]) as process:
        assert process.line.startswith("Waiting for")
        assert process.process.poll() is None
        Path(here([file], volume)[0]).touch()
        assert process.wait() == 0


def test_a_gateway_starts_when_a_model_server_accepts_connections() -> None:
    """A name service keeps for a while that the headless name has no address, so the gateway must not ask early."""
    wait = container(overlay("production"), "Deployment", "gateway", "wait")["command"]
    ready, headless = (find(overlay("production"), "Service", f"model-server{end}")["spec"] for end in ("-ready", ""))
    assert (ready["selector"], ready["ports"][0]["port"]) == (headless["selector"], 8500)
    assert (ready.get("clusterIP"), headless["clusterIP"]) == (None, "None")
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        code = wait[-1].replace('("model-server-ready", 8500)', str(server.getsockname()))
        with ServerProcess(*wait[1:-1], code) as process:
            assert process.line.startswith("Waiting for a model server that is ready")
            assert process.stop() == SIGTERM_STATUS
        with ServerProcess(*wait[1:-1], code) as process:
            server.listen()
            assert process.wait() == 0


def test_the_job_data_does_nothing_where_the_data_is(tmp_path: Path) -> None:
    one = container(overlay("training"), "Job", "data")
    volume = places(one, tmp_path)
    (volume["/data"] / "mnist.npz").write_text("mine")
    subprocess.run([sys.executable, *here(one["command"], volume)[1:]], check=True)
    assert (volume["/data"] / "mnist.npz").read_text() == "mine"


def test_roll_out_handles_sigterm() -> None:
    """As process 1 of its container it gets no signal without a handler. With the default, the status is not 0."""
    command = container(render("model-volume"), "Deployment", "roll-out")["command"]
    code = command[-1].replace("signal.pause()", "print('ready', flush=True); signal.pause()")
    with ServerProcess(*command[1:-1], code) as process:
        assert process.line == "ready"
        assert process.stop() == 0
