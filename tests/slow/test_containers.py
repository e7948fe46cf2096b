"""The images and overlays/local as podman plays them. ``make kube-test`` builds the images first and runs this."""

import io
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from tests.support.processes import free_port

SCRIPT = Path(__file__).parents[2] / "k8s" / "local.sh"
REGISTRY = "localhost/digitgan"
IMAGES = ("gateway", "models", "model-server")
MAX_GATEWAY_BYTES = 205 * 10**6


def podman(*arguments: str) -> str:
    done = subprocess.run(["podman", *arguments], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def inspected(name: str) -> dict[str, Any]:
    found: dict[str, Any]
    (found,) = json.loads(podman("inspect", name))
    return found


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    missing = [tool for tool in ("podman", "curl") if not shutil.which(tool)]
    assert not missing, f"needed: {missing}"
    port = free_port()
    try:
        done = subprocess.run([SCRIPT, "up", str(port)], capture_output=True, text=True, timeout=280)
        assert done.returncode == 0, done.stderr
        assert '"model":"discriminator"' in done.stdout
        yield f"http://127.0.0.1:{port}"
    finally:
        subprocess.run([SCRIPT, "down"], capture_output=True, timeout=120, check=True)


def test_a_digit_and_a_score_through_the_published_port(url: str) -> None:
    png = httpx.get(f"{url}/digits/7.png", timeout=60).raise_for_status()
    with Image.open(io.BytesIO(png.content)) as digit:
        assert digit.size == (28, 28)
    headers = {"content-type": "image/png"}
    score = httpx.post(f"{url}/score", content=png.content, headers=headers, timeout=60).raise_for_status().json()
    assert 0 <= score["scores"][0]["probability"] <= 1
    models = httpx.get(f"{url}/models", timeout=60).raise_for_status().json()["models"]
    assert all(version["card"] for model in models for version in model["versions"])


def test_the_models_are_copied_once(url: str) -> None:
    """Podman restarts an init container that has ended well, if the pod's policy is Always."""
    assert inspected("gateway-pod-0-models")["RestartCount"] == 0


def test_containers_have_no_root_no_shell_no_capability_and_nowhere_to_write(url: str) -> None:
    for name in ("gateway-pod-0-gateway", "gateway-pod-0-model-server"):
        found = inspected(name)
        assert found["Config"]["User"] == "65532:65532"
        assert found["HostConfig"]["ReadonlyRootfs"] is True
        assert found["EffectiveCaps"] in (None, [])
        processes = podman("top", name, "user", "pid", "args").splitlines()[1:]
        assert [line.split()[:3] for line in processes] == [["digitgan", "1", "python"]]
        assert podman("exec", name, "digitgan", "--version").startswith("digitgan ")
        shell = subprocess.run(["podman", "exec", name, "/bin/sh", "-c", "true"], capture_output=True, timeout=60)
        assert shell.returncode != 0
        writing = ["podman", "exec", name, "python", "-c", "open('/opt/digitgan/new', 'w')"]
        assert b"Read-only file system" in subprocess.run(writing, capture_output=True, timeout=120).stderr


def test_the_gateways_image_is_small_and_holds_no_tensorflow() -> None:
    assert inspected(f"{REGISTRY}/gateway")["Size"] <= MAX_GATEWAY_BYTES
    code = "import importlib.metadata as m; print(*(d.metadata['Name'].lower() for d in m.distributions()))"
    run = ("run", "--rm", "--read-only", "--entrypoint", "python", f"{REGISTRY}/gateway", "-c", code)
    packages = set(podman(*run).split())
    assert {"digitgan", "fastapi", "grpcio", "opentelemetry-sdk"} <= packages
    assert not {name for name in packages if "tensorflow" in name or name in ("keras", "tensorboard", "pip")}


def test_the_gateways_modules_are_compiled() -> None:
    """A container cannot write what Python compiles, so each start would compile it again."""
    code = (
        "import sys, pathlib, api.main\n"
        "cached = [getattr(module, '__cached__', None) for module in [*sys.modules.values()]]\n"
        "print(*(path for path in cached if path and not pathlib.Path(path).exists()))"
    )
    assert podman("run", "--rm", "--entrypoint", "python", f"{REGISTRY}/gateway", "-c", code).split() == []


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_says_what_it_is(name: str) -> None:
    config = inspected(f"{REGISTRY}/{name}")["Config"]
    assert config["User"] == "65532:65532"
    labels = {key.removeprefix("org.opencontainers.image.") for key in config["Labels"]}
    assert {"title", "description", "version", "revision", "licenses"} <= labels
