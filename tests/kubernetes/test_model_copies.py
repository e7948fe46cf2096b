"""How models reach the pods: the manifests' own commands, as processes on temporary directories."""

import json
import re
import subprocess
from pathlib import Path
from typing import Final

import pytest

from serving.contract import MODELS
from serving.pretrained import MODELS_DIR
from serving.storage import find_versions
from tests.kubernetes.rendering import (
    EVERY_COMBINATION,
    OVERLAYS,
    ROOT,
    Manifest,
    containers,
    overlay,
    pod_of,
    render_with,
)

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
    rendered = [*map(overlay, OVERLAYS), *(render_with(names, tmp_path) for names in EVERY_COMBINATION)]
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
