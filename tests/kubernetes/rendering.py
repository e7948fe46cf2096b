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
def render(name: str) -> list[Manifest]:
    """Returns the objects of an overlay, or of the base with the components in a name such as "base ingress"."""
    if name in OVERLAYS:
        return build(K8S / "overlays" / name)
    with TemporaryDirectory() as temporary:
        base, *components = name.split()
        content = {
            "resources": [os.path.relpath(K8S / base, temporary)],
            "components": [os.path.relpath(K8S / "components" / one, temporary) for one in components],
        }
        Path(temporary, "kustomization.yaml").write_text(json.dumps(content))
        return build(Path(temporary))


def build(directory: Path) -> list[Manifest]:
    """Returns the objects of a kustomization. Skips the test, with a reason, where there is nothing to render with."""
    done = subprocess.run([*_command(), str(directory)], capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stderr}{_NEEDED}"
    # By libyaml: in Python alone, reading takes longer than rendering.
    return [each for each in yaml.load_all(done.stdout, Loader=yaml.CSafeLoader) if each]


def in_cluster(name: str) -> list[Manifest]:
    """Returns the rendered objects, and those of the other overlays that an overlay needs, as its README says."""
    names = ("training", "production", "publish") if name == "publish" else (name,)
    return list({(one["kind"], one["metadata"]["name"]): one for each in names for one in render(each)}.values())


def find(objects: Sequence[Manifest], kind: str, name: str) -> Manifest:
    (found,) = [each for each in objects if each["kind"] == kind and each["metadata"]["name"] == name]
    return found


def pod_of(each: Manifest) -> Manifest:
    """Returns the pod's specification of a workload; nothing for other objects."""
    return dict(each.get("spec", {}).get("template", {}).get("spec", {}))


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
