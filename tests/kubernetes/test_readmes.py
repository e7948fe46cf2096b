"""The READMEs: each command that runs in a pod exists, and so does the pod."""

import os
import re
import shlex
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import yaml

from tests.kubernetes.rendering import K8S, OVERLAYS, ROOT, build, containers, find, pod_of, render
from tests.support.commands import assert_command_exists

TEXTS = {page: page.read_text() for page in [*K8S.rglob("README.md"), *K8S.rglob("*.yaml")]}


def test_each_command_in_a_pod_exists() -> None:
    lines = {line for text in TEXTS.values() for line in re.findall(r"kubectl .* -- digitgan (.*)", text)}
    in_pods = [one for name in OVERLAYS for one in containers(render(name)) if "args" in one]
    arguments = {tuple(one["args"]) for one in in_pods if re.search("digitgan/(?!models)", one["image"])}
    assert len(lines) + len(arguments) > 10
    for words in (*(shlex.split(line, comments=True) for line in lines), *arguments):
        assert_command_exists(words)


def test_each_folder_that_a_command_applies_exists() -> None:
    """From the folder that has k8s/. An operator makes k8s/overlays/mine."""
    text = "".join([*TEXTS.values(), (ROOT / "docs/how-to/deploy.md").read_text()])
    found = set(re.findall(r"kubectl (?:apply|delete) -k ([\w/-]+)", text)) - {"k8s/overlays/mine"}
    assert [path for path in found if not (ROOT / path / "kustomization.yaml").exists()] == []


def test_each_workload_that_a_command_names_exists() -> None:
    found = {
        (each["kind"].lower(), each["metadata"]["name"], container)
        for name in OVERLAYS
        for each in render(name)
        for container in ("", *(one["name"] for one in containers([each])))
    }
    place = r"kubectl -n digitgan .*?\b(deployment|job)/([\w-]+)(?:.* --container ([\w-]+))?"
    named = {words for text in TEXTS.values() for words in re.findall(place, text)}
    assert len(named) > 5
    assert named - found == set()


def test_a_log_is_followed_only_when_its_container_runs() -> None:
    """While init containers run, `kubectl logs --follow` of a later container gives up."""
    jobs = {
        each["metadata"]["name"]: pod_of(each) for name in OVERLAYS for each in render(name) if each["kind"] == "Job"
    }
    followed = [
        (before, name)
        for text in TEXTS.values()
        for before, name in re.findall(r"\$ (.*)\n\$ kubectl .* logs --follow .*job(?:/|-name=)([\w-]+)", text)
    ]
    assert len(followed) > 3
    for before, name in followed:
        assert "initContainers" not in jobs[name] or re.search(rf"wait --for=jsonpath=.* job/{name} ", before), name


@pytest.mark.parametrize(("name", "train"), [("training", "train"), ("training-workers", "train-workers")])
def test_the_patch_that_chooses_nodes_applies_to_a_copy(tmp_path: Path, name: str, train: str) -> None:
    (printed,) = re.findall(r"```yaml\n(.*?)```", TEXTS[K8S / "overlays/training/README.md"], re.DOTALL)
    copy = {"resources": [os.path.relpath(K8S / "overlays" / name, tmp_path)]}
    content = yaml.safe_load(textwrap.dedent(printed).replace("name: train}", f"name: {train}}}"))
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(copy | content))
    pod = pod_of(find(build(tmp_path), "Job", train))
    assert pod["nodeSelector"] == {"nvidia.com/gpu.product": "NVIDIA-A100-SXM4-40GB"}


def test_a_restore_brings_the_models_of_the_backup_back(tmp_path: Path) -> None:
    config, backup = tmp_path / "models" / "models.config", tmp_path / "models.tar"
    config.parent.mkdir()
    config.write_text("stable 2")
    found = re.findall(r'-- python -c "(import sys, tarfile.*?)" [<>] models.tar', TEXTS[K8S / "README.md"], re.DOTALL)
    save, restore = (code.replace("'/", f"'{tmp_path}/") for code in found)
    with backup.open("wb") as file:
        subprocess.run([sys.executable, "-c", save], check=True, stdout=file)
    config.write_text("stable 1")
    with backup.open("rb") as file:
        subprocess.run([sys.executable, "-c", restore], check=True, stdin=file)
    assert config.read_text() == "stable 2"
