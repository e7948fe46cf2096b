"""``digitgan models``: promoted and rolled back by label, on two model servers, under a client that never pauses."""

import base64
import io
import json
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image
from tensorflow.core.protobuf import saved_model_pb2

from serving import model_config, server_config
from serving.contract import GENERATOR, MODEL_CARD, MODELS
from serving.model_card import read_card, write_card
from serving.pretrained import MODELS_DIR
from tests.gateway import processes
from tests.gateway.processes import ServerProcess
from tests.gateway.waiting import wait_until

SERVER = """
import sys
from pathlib import Path
from serving import model_config
from serving.model_server.model import LoadingOptions
from serving.model_server.server import ServerOptions, serve
options = ServerOptions(
    model_config.read(Path(sys.argv[1])), port=0, loading=LoadingOptions(max_num_load_retries=0)
)
sys.exit(serve(options, lambda server: print(server.port, flush=True)))
"""


@dataclass
class Service:
    base: Path
    target: str
    client: httpx.Client
    servers: list[ServerProcess]

    def models(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "digitgan", "models", *arguments, "--models", str(self.base)]
        return subprocess.run(
            [*command, "--model-server", self.target], capture_output=True, text=True, timeout=120, env=ENVIRONMENT
        )

    def version(self) -> int:
        answer = self.client.post("/generate", json={"seeds": [7]})
        assert answer.status_code == 200, answer.text
        version: int = answer.json()["version"]
        return version

    def labels(self, model: str = GENERATOR) -> dict[str, int]:
        configs = {one.name: one for one in model_config.read(self.base / server_config.MODELS_CONFIG)}
        return dict(configs[model].labels)


ENVIRONMENT = {"COLUMNS": "80", "PATH": "/usr/bin:/bin"}


DIMMED = 200
"""The brightest pixel of seed 0's digit is over 250."""


def max_pixel(png: str) -> int:
    with Image.open(io.BytesIO(base64.b64decode(png))) as image:
        return int(np.asarray(image).max())


def publish(base: Path, version: int, change: Callable[[Path], object] = lambda _: None) -> None:
    """Publishes the package's generator as a version of that number, changed, by a rename."""
    staging = base / GENERATOR / f".{version}.partial"
    shutil.copytree(MODELS_DIR / GENERATOR / "1", staging)
    change(staging)
    staging.rename(base / GENERATOR / str(version))


def dim(version: Path) -> None:
    """Makes a generator whose brightest pixel is DIMMED, so that an image tells by whom it was made."""
    path = version / "saved_model.pb"
    model = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    functions = model.meta_graphs[0].graph_def.library.function
    constants = [
        node.attr["value"].tensor for function in functions for node in function.node_def if node.op == "Const"
    ]
    (white,) = [tensor for tensor in constants if not tensor.tensor_shape.dim and list(tensor.float_val) == [255.0]]
    white.float_val[0] = DIMMED
    path.write_bytes(model.SerializeToString())
    write_card(version, {key: value for key, value in read_card(version).items() if key != "files"})


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with ExitStack() as stack:
        base = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for name in MODELS:
            shutil.copytree(MODELS_DIR / name, base / name)
        server_config.write_configs(base, MODELS, base, threads=2)
        for name in MODELS:
            command = [sys.executable, "-m", "digitgan", "models", "promote", name, "1", "--models", str(base)]
            subprocess.run(command, check=True, capture_output=True)
        arguments = ("-c", SERVER, str(base / server_config.MODELS_CONFIG))
        servers = [stack.enter_context(ServerProcess(*arguments)) for _ in range(2)]
        target = "ipv4:" + ",".join(f"127.0.0.1:{server.line}" for server in servers)
        gateway = stack.enter_context(processes.gateway(target, version_label="stable", models_dir=base))
        client = stack.enter_context(httpx.Client(base_url=processes.url_of(gateway), timeout=60))
        yield Service(base, target, client, servers)


def test_promoted_and_rolled_back_under_load_without_a_failed_request_and_each_answer_names_its_maker(
    service: Service,
) -> None:
    publish(service.base, 2, dim)
    answers: list[httpx.Response] = []
    enough = threading.Event()

    def ask() -> None:
        while not enough.is_set():
            answers.append(service.client.post("/generate", json={"seeds": list(range(len(answers) % 4 + 1))}))

    asking = [threading.Thread(target=ask) for _ in range(4)]
    for thread in asking:
        thread.start()
    try:
        canary = service.models("promote", GENERATOR, "2", "--canary")
        assert canary.returncode == 0, canary.stderr
        assert service.labels() == {"stable": 1, "canary": 2}
        named = service.client.post("/generate", json={"seeds": [7], "version": 2})
        assert named.json()["version"] == 2
        assert service.version() == 1
        promoted = service.models("promote", GENERATOR, "2")
        assert promoted.returncode == 0, promoted.stderr
        assert service.version() == 2
        assert service.labels() == {"stable": 2, "previous": 1}
        back = service.models("rollback", GENERATOR)
        assert back.returncode == 0, back.stderr
        assert service.version() == 1
        assert service.labels() == {"stable": 1, "previous": 2}
    finally:
        enough.set()
        for thread in asking:
            thread.join()
    assert {answer.status_code for answer in answers} == {200}
    told = [answer.json() for answer in answers]
    assert {answer["version"] for answer in told} == {1, 2}
    for answer in told:
        brightest = {max_pixel(image["png"]) for image in answer["images"]}
        assert (max(brightest) <= DIMMED) == (answer["version"] == 2)


def test_a_version_that_falls_short_is_refused_with_its_figures_unless_forced(service: Service) -> None:
    def worse(directory: Path) -> None:
        card = json.loads((directory / MODEL_CARD).read_text())
        card["evaluation"]["figures"]["frechet_distance"] = 18.2
        (directory / MODEL_CARD).write_text(json.dumps(card))

    publish(service.base, 3, worse)
    before = service.labels()
    refused = service.models("promote", GENERATOR, "3")
    assert refused.returncode == 2
    assert "evaluation.figures.frechet_distance is 18.2, and has to be at most 1." in refused.stderr
    assert service.labels() == before
    listed = service.models("list").stdout.splitlines()
    row = next(line for line in listed if line.split()[:2] == [GENERATOR, "3"])
    assert "Fréchet 18.2" in row
    assert row.rstrip().endswith("falls short")
    remark = f"{GENERATOR} 3 falls short: evaluation.figures.frechet_distance is 18.2, and has to be at most 1"
    assert remark in listed
    assert max(map(len, set(listed) - {remark})) <= 80
    forced = service.models("promote", GENERATOR, "3", "--force")
    assert forced.returncode == 0
    assert "anyway" in forced.stdout
    assert service.version() == 3
    assert service.models("rollback", GENERATOR).returncode == 0


def test_a_version_that_cannot_be_loaded_changes_nothing_and_says_why(service: Service) -> None:
    def broken(directory: Path) -> None:
        graph = directory / "saved_model.pb"
        graph.write_bytes(b"no graph")
        write_card(directory, {key: value for key, value in read_card(directory).items() if key != "files"})

    publish(service.base, 4, broken)
    before, serving = service.labels(), service.version()
    failed = service.models("promote", GENERATOR, "4")
    assert failed.returncode == 2
    assert "can't load generator version 4" in failed.stderr
    assert "Nothing changed: generator is stable" in failed.stderr
    assert (service.labels(), service.version()) == (before, serving)


def test_files_that_are_not_those_of_the_card_are_refused_even_by_force(service: Service) -> None:
    publish(service.base, 5, lambda directory: (directory / "saved_model.pb").write_bytes(b"other"))
    refused = service.models("promote", GENERATOR, "5", "--force")
    assert refused.returncode == 2
    assert "the model card says" in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("promote", GENERATOR, "99"), "holds no version 99; there are: 1, 2"),
        (("promote", "painter", "1"), "has no model painter; it has: generator, discriminator, classifier"),
        (("rollback", "discriminator"), "has no version labelled previous"),
    ],
)
def test_a_mistake_is_told(service: Service, arguments: tuple[str, ...], told: str) -> None:
    done = service.models(*arguments)
    assert done.returncode == 2
    assert told in done.stderr
    assert "Traceback" not in done.stderr


def test_export_keeps_the_labels(service: Service) -> None:
    before = service.labels()
    server_config.write_configs(service.base, MODELS, service.base, threads=2)
    assert service.labels() == before


def test_one_of_two_servers_killed_loses_nothing(service: Service) -> None:
    """SIGKILL, under a client: calls on the dead connection are made again at the other server."""
    answers: list[int] = []
    killed = threading.Event()

    def ask() -> None:
        after = 0
        while after < 100:
            answers.append(service.client.get(f"/digits/{len(answers)}.png").status_code)
            after += killed.is_set()

    asking = [threading.Thread(target=ask) for _ in range(4)]
    for thread in asking:
        thread.start()
    try:
        wait_until(lambda: len(answers) >= 20)
        service.servers[0].process.kill()
        service.servers[0].process.wait(10)
    finally:
        killed.set()
        for thread in asking:
            thread.join()
    assert len(answers) >= 420
    assert set(answers) == {200}
