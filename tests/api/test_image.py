"""The gateway runs on what its image brings and nothing else: the code, and the packages of the extras, as the
Dockerfile says. No container is needed for that.
"""

import re
import shutil
import subprocess
import sysconfig
from importlib.metadata import distribution, packages_distributions
from pathlib import Path

import httpx
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.support import gateways
from tests.support.misbehaving import MisbehavingServer

ROOT = Path(__file__).parents[2]

RUN = """
import runpy, sys
sys.path += [{code!r}, {packages!r}]
sys.modules.update(dict.fromkeys({absent!r}))  # to import one is a ModuleNotFoundError
sys.argv = ["digitgan", "gateway"]
runpy.run_module("digitgan", run_name="__main__")
"""


def stage(name: str) -> str:
    """The instructions of one of the Dockerfile's stages."""
    found = re.search(rf"^FROM \w+ AS {name}\n(.*?)(?=^FROM|\Z)", (ROOT / "Dockerfile").read_text(), re.M | re.S)
    assert found, name
    return found[1]


def code_of_the_image(directory: Path) -> Path:
    """The project's files as they are in the image: copied, and what is removed there is removed."""
    for folder in re.findall(r"^COPY (\w+) \1$", stage("code"), re.M):
        shutil.copytree(ROOT / folder, directory / folder)
    removal = stage("gateway-code").partition("RUN ")[2].partition("\n\n")[0]
    assert removal.count("/opt/digitgan/") == 2
    subprocess.run(["sh", "-c", removal.replace("/opt/digitgan", str(directory))], check=True)
    assert not (directory / "training").exists()
    assert not list(directory.rglob("saved_model.pb"))
    return directory


def packages_of_the_image() -> set[str]:
    """The distributions that the image's extras bring, dependencies of dependencies included."""
    extras = re.search(r"install --quiet '\.\[([\w,-]+)\]'", stage("gateway-dependencies"))
    assert extras
    wanted = [Requirement(f"digitgan[{extras[1]}]")]
    seen: set[tuple[str, str]] = set()
    while wanted:
        one = wanted.pop()
        for extra in {"", *one.extras}:
            place = canonicalize_name(one.name), extra
            if place not in seen:
                seen.add(place)
                needed = map(Requirement, distribution(one.name).requires or ())
                wanted += [other for other in needed if not other.marker or other.marker.evaluate({"extra": extra})]
    return {name for name, _ in seen}


def test_the_gateway_answers_with_the_files_of_its_image_alone(
    faulty_server: MisbehavingServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packages = packages_of_the_image()
    assert {"fastapi", "grpcio", "opentelemetry-sdk"} <= packages
    absent = {
        module
        for module, owners in packages_distributions().items()
        if module.isidentifier() and not packages & {canonicalize_name(owner) for owner in owners}
    }
    assert {"tensorflow", "openvino", "httpx", "pytest"} <= absent
    code = str(code_of_the_image(tmp_path))
    program = RUN.format(code=code, packages=sysconfig.get_path("purelib"), absent=sorted(absent))
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")  # traces are loaded, and none is sent
    with gateways.gateway(faulty_server.target, ("-I", "-S", "-c", program), tracing=True) as process:
        with httpx.Client(base_url=process.url, timeout=60) as http:
            assert http.get("/digits/7.png").headers["content-type"] == "image/png"
            assert http.post("/generate", json={"count": 100}, headers={"Accept": "application/zip"}).is_success
            assert http.get("/").is_success
            assert http.get("/docs").is_success
            assert http.get("/models").is_success
        assert process.stop() == 0, process.log
    assert "Traceback" not in process.log
