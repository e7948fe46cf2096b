"""How models reach the pods: the manifests' own commands, as processes on temporary directories."""

import json
import re
import shutil
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
    COMPONENTS,
    OVERLAYS,
    ROOT,
    Manifest,
    containers,
    find,
    overlay,
    pod_of,
    render_with,
)
from tests.support.processes import ServerProcess

IMAGE_MODELS: Final = "/models"
"""Where the image digitgan/models keeps the models."""


def copies(objects: list[Manifest]) -> list[Manifest]:
    """Returns the containers of the image digitgan/models."""
    return [one for pod in map(pod_of, objects) if pod for one in containers(pod) if "digitgan/models" in one["image"]]


def entrypoint() -> list[str]:
    """Returns the entry point of the image digitgan/models."""
    stage = (ROOT / "Dockerfile").read_text().partition("FROM scratch AS models")[2]
    found = re.search(r"^ENTRYPOINT (.*)$", stage, re.MULTILINE)
    assert found
    command: list[str] = json.loads(found[1])
    return command


def test_no_volume_hides_the_images_models(tmp_path: Path) -> None:
    for name in COMPONENTS:
        (tmp_path / name).mkdir()
    rendered = [*map(overlay, OVERLAYS), *(render_with([name], tmp_path / name) for name in COMPONENTS)]
    found = [one for objects in rendered for one in copies(objects)]
    assert found
    for one in found:
        assert IMAGE_MODELS not in [mount["mountPath"] for mount in one["volumeMounts"]]


@pytest.mark.parametrize("workload", ["gateway", "model-server"])
def test_the_models_arrive_in_the_base(workload: str, tmp_path: Path) -> None:
    (tmp_path / "overlay").mkdir()
    volume = tmp_path / "volume"
    volume.mkdir()
    objects = [one for one in render_with((), tmp_path / "overlay") if one["metadata"]["name"] == workload]
    (copy,) = copies(objects)
    (mount,) = copy["volumeMounts"]
    places = {mount["mountPath"]: str(volume), f"{IMAGE_MODELS}/.": f"{MODELS_DIR}/."}
    command = [places.get(word, word) for word in (*copy.get("command", entrypoint()), *copy["args"])]
    subprocess.run(command, check=True)
    assert {name: set(find_versions(volume / name)) for name in MODELS} == {name: {1} for name in MODELS}


def model_volume(directory: Path) -> list[Manifest]:
    return render_with(["model-volume"], directory)


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


def copy_models(objects: list[Manifest], volumes: Path, image: Path = MODELS_DIR) -> subprocess.CompletedProcess[str]:
    """Runs both init containers of the Deployment roll-out. ``image``: the models in the image."""
    copy, one = pod_of(find(objects, "Deployment", "roll-out"))["initContainers"]
    found = places(copy, volumes)
    subprocess.run([*entrypoint()[:-1], f"{image}/.", *here(copy["args"], found)], check=True)
    command = [sys.executable, "-m", "digitgan", *here(one["args"], places(one, volumes))]
    return subprocess.run(command, capture_output=True, text=True)


def test_roll_out_copies_what_is_missing_and_keeps_the_labels(tmp_path: Path) -> None:
    objects, volume = model_volume(tmp_path), tmp_path / "volumes" / "models"
    done = copy_models(objects, volume.parent)
    assert done.returncode == 0, done.stderr
    assert {name: set(find_versions(volume / name)) for name in MODELS} == {name: {1} for name in MODELS}
    assert "stable" in (volume / MODELS_CONFIG).read_text()
    # A later release: what is there stays, to the byte.
    image = tmp_path / "image"
    shutil.copytree(MODELS_DIR, image)
    shutil.copytree(image / "generator" / "1", image / "generator" / "2")
    (volume / MODELS_CONFIG).write_text((volume / MODELS_CONFIG).read_text() + "# promoted\n")
    config = (volume / MODELS_CONFIG).read_bytes()
    done = copy_models(objects, volume.parent, image)
    assert done.returncode == 0, done.stderr
    assert set(find_versions(volume / "generator")) == {1, 2}
    assert (volume / MODELS_CONFIG).read_bytes() == config


def test_a_release_without_models_fails(tmp_path: Path) -> None:
    (tmp_path / "image").mkdir()
    done = copy_models(model_volume(tmp_path), tmp_path / "volumes", tmp_path / "image")
    assert done.returncode != 0
    assert "holds no models" in done.stderr


def test_a_new_tag_of_the_models_or_of_the_gateway_can_be_applied_and_copies_again(tmp_path: Path) -> None:
    """The template of a Job cannot be changed, and a bare pod cannot be drained."""
    for objects in (model_volume(tmp_path), overlay("production")):
        copying = [one["kind"] for one in objects if (pod := pod_of(one)) and "digitgan/models" in str(pod)]
        assert copying == ["Deployment"]


@pytest.mark.parametrize(
    ("kind", "name", "file"),
    [
        ("Deployment", "model-server", f"/models/{MODELS_CONFIG}"),
        ("Job", "train", "/data/mnist.npz"),
        ("Job", "train-workers", "/data/mnist.npz"),
    ],
)
def test_a_pod_waits_for_its_file(kind: str, name: str, file: str, tmp_path: Path) -> None:
    overlays = {"model-server": "production", "train": "training", "train-workers": "training-workers"}
    (wait,) = pod_of(find(overlay(overlays[name]), kind, name))["initContainers"]
    volume = places(wait, tmp_path / "volumes")
    with ServerProcess(*here(wait["command"], volume)[1:]) as process:
        assert process.line.startswith("Waiting for")
        assert process.process.poll() is None
        Path(here([file], volume)[0]).touch()
        assert process.wait() == 0


def test_the_job_data_does_nothing_where_the_data_is(tmp_path: Path) -> None:
    (one,) = pod_of(find(overlay("training"), "Job", "data"))["containers"]
    volume = places(one, tmp_path / "volumes")
    (volume["/data"] / "mnist.npz").write_text("mine")
    subprocess.run([sys.executable, *here(one["command"], volume)[1:]], check=True)
    assert (volume["/data"] / "mnist.npz").read_text() == "mine"


def test_roll_out_handles_sigterm(tmp_path: Path) -> None:
    """As process 1 of its container it gets no signal without a handler. With the default, the status is not 0."""
    (one,) = pod_of(find(model_volume(tmp_path), "Deployment", "roll-out"))["containers"]
    code = one["command"][-1].replace("signal.pause()", "print('ready', flush=True); signal.pause()")
    with ServerProcess(*one["command"][1:-1], code) as process:
        assert process.line == "ready"
        assert process.stop() == 0
