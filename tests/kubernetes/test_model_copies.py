"""How models reach the pods, and what pods wait for: the manifests' own commands, as processes on this machine."""

import re
import signal
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
from tests.kubernetes.rendering import ROOT, Manifest, container, containers, find, pod_of, render
from tests.support.pretrained import VERSIONS
from tests.support.processes import ServerProcess

COPYING: Final = ("image", "models")
"""The init containers that copy: from the image, and from there to the volume."""


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


@pytest.mark.parametrize("workload", ["gateway", "model-server", "roll-out"])
def test_the_models_of_the_image_arrive(workload: str, tmp_path: Path) -> None:
    objects = render("base model-volume") if workload == "roll-out" else render("base")
    copy, *add = [one for one in containers([find(objects, "Deployment", workload)]) if one["name"] in COPYING]
    stage = (ROOT / "Dockerfile").read_text().partition("FROM scratch AS models")[2]
    assert 'ENTRYPOINT ["/bin/cp", "-R", "/models/."]' in stage
    assert "/models" not in [mount["mountPath"] for mount in copy["volumeMounts"]], "it hides the image's models"
    subprocess.run(["cp", "-R", f"{MODELS_DIR}/.", *here(copy["args"], places(copy, tmp_path))], check=True)
    for one in add:
        subprocess.run([sys.executable, "-m", "digitgan", *here(one["args"], places(one, tmp_path))], check=True)
        assert "stable" in (tmp_path / "models" / MODELS_CONFIG).read_text()
    assert all(find_versions(tmp_path / "models" / name).keys() == {VERSIONS[name]} for name in MODELS)


def test_a_new_tag_can_be_applied_and_copies_again() -> None:
    """The template of a Job cannot be changed, and a bare pod cannot be drained."""
    copying = [one["kind"] for one in render("production") if "digitgan/models" in str(pod_of(one))]
    assert copying == ["Deployment"]


@pytest.mark.parametrize(
    ("name", "kind", "workload", "file"),
    [
        ("production", "Deployment", "model-server", f"/models/{MODELS_CONFIG}"),
        ("training", "Job", "train", "/data/mnist.npz"),
        ("training-workers", "Job", "train-workers", "/data/mnist.npz"),
    ],
)
def test_a_pod_waits_for_its_file(name: str, kind: str, workload: str, file: str, tmp_path: Path) -> None:
    wait = container(render(name), kind, workload, "wait")
    volume = places(wait, tmp_path)
    with ServerProcess(*here(wait["command"], volume)[1:]) as process:
        assert process.line.startswith("Waiting for")
        assert process.process.poll() is None
        Path(here([file], volume)[0]).touch()
        assert process.wait() == 0


def test_a_gateway_starts_when_a_model_server_accepts_connections() -> None:
    """A name service keeps for a while that the headless name has no address, so the gateway must not ask early."""
    wait = container(render("production"), "Deployment", "gateway", "wait")["command"]
    ready, headless = (find(render("production"), "Service", f"model-server{end}")["spec"] for end in ("-ready", ""))
    assert (ready["selector"], ready["ports"][0]["port"]) == (headless["selector"], 8500)
    assert (ready.get("clusterIP"), headless["clusterIP"]) == (None, "None")
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        code = wait[-1].replace('("model-server-ready", 8500)', str(server.getsockname()))
        with ServerProcess(*wait[1:-1], code) as process:
            assert process.line.startswith("Waiting for a model server that is ready")
            assert process.stop() == 128 + signal.SIGTERM
        with ServerProcess(*wait[1:-1], code) as process:
            server.listen()
            assert process.wait() == 0


def test_the_job_data_does_nothing_where_the_data_is(tmp_path: Path) -> None:
    one = container(render("training"), "Job", "data")
    volume = places(one, tmp_path)
    (volume["/data"] / "mnist.npz").write_text("mine")
    subprocess.run([sys.executable, *here(one["command"], volume)[1:]], check=True)
    assert (volume["/data"] / "mnist.npz").read_text() == "mine"


def test_roll_out_handles_sigterm() -> None:
    """As process 1 of its container it gets no signal without a handler. With the default, the status is not 0."""
    command = container(render("base model-volume"), "Deployment", "roll-out")["command"]
    code = command[-1].replace("signal.pause()", "print('ready', flush=True); signal.pause()")
    with ServerProcess(*command[1:-1], code) as process:
        assert process.line == "ready"
        assert process.stop() == 0
