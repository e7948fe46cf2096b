"""Rendered manifests: kustomize, by itself or in kubectl, on the overlays and on combinations of components."""

import json
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from copy import deepcopy
from functools import cache
from itertools import chain, combinations
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
K8S = ROOT / "k8s"
OVERLAYS = tuple(sorted(path.name for path in (K8S / "overlays").iterdir()))
COMPONENTS = tuple(sorted(path.name for path in (K8S / "components").iterdir()))
EVERY_COMBINATION = list(chain.from_iterable(combinations(COMPONENTS, count) for count in range(len(COMPONENTS) + 1)))
OLDEST_KUSTOMIZE = (4, 5)
"""kubectl 1.24's: with the components, labels and patches that are used."""

Manifest = dict[str, Any]
_rendered: dict[tuple[str, ...], list[Manifest]] = {}


def render(directory: Path) -> list[Manifest]:
    """Returns the objects of a kustomization. Skips the test, with a reason, where there is nothing to render with."""
    done = subprocess.run([*_command(), str(directory)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    # By libyaml: in Python alone, reading takes longer than rendering.
    return [each for each in yaml.load_all(done.stdout, Loader=yaml.CSafeLoader) if each]


def render_with(components: Sequence[str], directory: Path) -> list[Manifest]:
    """Returns the base with some components, by a kustomization in ``directory``."""
    if tuple(components) in _rendered:
        return deepcopy(_rendered[tuple(components)])
    content = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [os.path.relpath(K8S / "base", directory)],
        "components": [os.path.relpath(K8S / "components" / name, directory) for name in components],
    }
    (directory / "kustomization.yaml").write_text(json.dumps(content))
    _rendered[tuple(components)] = render(directory)
    return deepcopy(_rendered[tuple(components)])


@cache
def overlay(name: str) -> list[Manifest]:
    return render(K8S / "overlays" / name)


def find(objects: Sequence[Manifest], kind: str, name: str) -> Manifest:
    (found,) = [each for each in objects if each["kind"] == kind and each["metadata"]["name"] == name]
    return found


def pod_of(each: Manifest) -> Manifest:
    """Returns the pod's specification of a workload; nothing for other objects."""
    pod: Manifest = each.get("spec", {}).get("template", {}).get("spec", {}) or (
        each["spec"] if each["kind"] == "Pod" else {}
    )
    return pod


def containers(pod: Mapping[str, Any]) -> list[Manifest]:
    """Returns the containers of a pod, those of its start included."""
    return [*pod.get("initContainers", []), *pod["containers"]]


def container(workload: Manifest, name: str) -> Manifest:
    (found,) = [each for each in workload["spec"]["template"]["spec"]["containers"] if each["name"] == name]
    assert isinstance(found, dict)
    return found


@cache
def _command() -> tuple[str, ...]:
    reasons = []
    if binary := shutil.which("kustomize"):
        version = subprocess.run([binary, "version"], capture_output=True, text=True).stdout.strip()
        if _number(version) >= OLDEST_KUSTOMIZE:
            return binary, "build"
        reasons.append(f"kustomize is {version}")
    if binary := shutil.which("kubectl"):
        done = subprocess.run([binary, "version", "--client", "--output=json"], capture_output=True, text=True)
        version = json.loads(done.stdout or "{}").get("kustomizeVersion", "before 4.5")
        if _number(version) >= OLDEST_KUSTOMIZE:
            return binary, "kustomize"
        reasons.append(f"kubectl's kustomize is {version}")
    why = " and ".join(reasons) or "neither kustomize nor kubectl is on the PATH"
    return pytest.skip(f"NOT CHECKED: the Kubernetes manifests. {why}; kustomize 4.5 or kubectl 1.24 is needed")


def _number(version: str) -> tuple[int, ...]:
    parts = version.lstrip("v{").split(".")[:2]
    return tuple(int(part) for part in parts) if all(part.isdecimal() for part in parts) else ()
