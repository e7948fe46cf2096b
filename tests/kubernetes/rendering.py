"""Rendered manifests: kustomize, by itself or in kubectl, on the overlays and on the base with components."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import combinations
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import pytest
import yaml

ROOT: Final = Path(__file__).parents[2]
K8S: Final = ROOT / "k8s"
OVERLAYS: Final = tuple(sorted(path.name for path in (K8S / "overlays").iterdir()))
COMPONENTS: Final = tuple(sorted(path.name for path in (K8S / "components").iterdir()))

_NEEDED: Final = "They need kustomize 4.5 or kubectl 1.24, or later."

Manifest = dict[str, Any]


def _patched(component: str) -> set[str]:
    content = yaml.safe_load((K8S / "components" / component / "kustomization.yaml").read_text())
    return {name for patch in content.get("patches", []) for name in patch["target"]["name"].split("|")}


_COMBINATIONS: Final = (
    (),
    *((component,) for component in COMPONENTS),
    *(pair for pair in combinations(COMPONENTS, 2) if _patched(pair[0]) & _patched(pair[1])),
    COMPONENTS,
)
"""Of components: none, each one, each pair that patches the same object, and all of them."""

every_set = pytest.mark.parametrize("name", [*OVERLAYS, *(" ".join(["base", *names]) for names in _COMBINATIONS)])


@cache
def render(*components: str, directory: Path = K8S / "base") -> list[Manifest]:
    """Returns the objects of a kustomization. Skips the test, with a reason, where there is nothing to render with."""
    if components:
        with TemporaryDirectory() as temporary:
            content = {
                "apiVersion": "kustomize.config.k8s.io/v1beta1",
                "kind": "Kustomization",
                "resources": [os.path.relpath(directory, temporary)],
                "components": [os.path.relpath(K8S / "components" / name, temporary) for name in components],
            }
            Path(temporary, "kustomization.yaml").write_text(json.dumps(content))
            return render(directory=Path(temporary))
    done = subprocess.run([*_command(), str(directory)], capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stderr}{_NEEDED}"
    # By libyaml: in Python alone, reading takes longer than rendering.
    return [each for each in yaml.load_all(done.stdout, Loader=yaml.CSafeLoader) if each]


def overlay(name: str) -> list[Manifest]:
    return render(directory=K8S / "overlays" / name)


def objects_of(name: str) -> list[Manifest]:
    """Returns an overlay, or the base with the components of a name such as "base ingress tracing"."""
    return overlay(name) if name in OVERLAYS else render(*name.split()[1:])


def needed_by(name: str) -> list[Manifest]:
    """Returns the objects of the other overlays that an overlay needs, as its README says."""
    if name != "publish":
        return []
    service = overlay("production")
    names = {(each["kind"], each["metadata"]["name"]) for each in service}
    return [*service, *(one for one in overlay("training") if (one["kind"], one["metadata"]["name"]) not in names)]


def find(objects: Sequence[Manifest], kind: str, name: str) -> Manifest:
    (found,) = [each for each in objects if each["kind"] == kind and each["metadata"]["name"] == name]
    return found


def pod_of(each: Manifest) -> Manifest:
    """Returns the pod's specification of a workload; nothing for other objects."""
    pod: Manifest = each.get("spec", {}).get("template", {}).get("spec", {})
    return pod


def containers(objects: Sequence[Manifest]) -> Iterator[Manifest]:
    for pod in filter(None, map(pod_of, objects)):
        yield from (*pod.get("initContainers", []), *pod["containers"])


def container(objects: Sequence[Manifest], kind: str, workload: str, name: str = "") -> Manifest:
    """Returns a container of a workload: the one with the workload's own name, if no other is given."""
    (found,) = [one for one in containers([find(objects, kind, workload)]) if one["name"] == (name or workload)]
    return found


@cache
def _command() -> tuple[str, str]:
    for program, command in (("kustomize", "build"), ("kubectl", "kustomize")):
        if binary := shutil.which(program):
            return binary, command
    return pytest.skip(
        f"NOT CHECKED: the Kubernetes manifests. Neither kustomize nor kubectl is on the PATH. {_NEEDED}"
    )
