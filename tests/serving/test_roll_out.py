"""``digitgan models``: promoted and rolled back by label, on two model servers, under a client that never pauses."""

import base64
import io
import json
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import pytest
from google.protobuf import text_format
from PIL import Image
from tensorflow.core.protobuf import saved_model_pb2

from serving import apis
from serving.contract import GENERATOR, MODEL_CARD, MODELS
from serving.pretrained import MODELS_DIR
from serving.tf_serving import model_config, server_config
from serving.tf_serving.server_config import MODELS_CONFIG
from serving.versions.model_card import read_card, write_card
from serving.versions.roll_out import STABLE, RollOut, RollOutError, connected
from tests.api import processes
from tests.api.waiting import wait_until
from tests.support.processes import EMBEDDED, ModelServerProcess, free_port


@dataclass
class Service:
    base: Path
    program: str
    client: httpx.Client
    servers: list[ModelServerProcess]

    @property
    def target(self) -> str:
        return "ipv4:" + ",".join(server.target for server in self.servers)

    def models(self, *arguments: str, target: str | None = None) -> subprocess.CompletedProcess[str]:
        """Runs a command, after which every model server must still accept the file."""
        command = [sys.executable, "-m", "digitgan", "models", *arguments, "--models", str(self.base)]
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=300,
            env=ENVIRONMENT | {"DIGITGAN_MODEL_SERVER": target or self.target},
        )
        with connected(self.target) as servers:
            for server in servers:
                server.reload(self.config())
        return done

    def config(self) -> apis.ModelServerConfig:
        return model_config.read_proto(self.base / MODELS_CONFIG)

    def version(self) -> int:
        answer = self.client.post("/generate", json={"seeds": [7]})
        assert answer.status_code == 200, answer.text
        version: int = answer.json()["version"]
        return version

    def labels(self, model: str = GENERATOR) -> dict[str, int]:
        configs = {one.name: one for one in model_config.read(self.base / MODELS_CONFIG)}
        return dict(configs[model].labels)


ENVIRONMENT = {"COLUMNS": "80", "PATH": "/usr/bin:/bin"}
DOCS = Path(__file__).parents[2] / "docs"
POLL = "--model_config_file_poll_wait_seconds=1"


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


def start(program: str, models_config: Path, *flags: str) -> ModelServerProcess:
    """Returns a model server on a port of its own, which does not retry to load a broken version."""
    port = free_port()
    all_flags = [
        f"--port={port}",
        f"--model_config_file={models_config}",
        "--file_system_poll_wait_seconds=1",
        "--max_num_load_retries=0",
        "--allow_version_labels_for_unavailable_models=true",
        "--enable_serialization_as_tensor_content=true",
        *flags,
    ]
    return ModelServerProcess(program, all_flags, f"127.0.0.1:{port}")


@pytest.fixture(scope="module")
def service(program: str) -> Iterator[Service]:
    """Two model servers that poll one models.config, in which version 1 of each model is stable."""
    with ExitStack() as stack:
        base = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for name in MODELS:
            shutil.copytree(MODELS_DIR / name, base / name)
        server_config.write_configs(base, MODELS, base, threads=2)
        servers = [start(program, base / MODELS_CONFIG, POLL) for _ in range(2)]
        for server in servers:
            stack.enter_context(server)
        target = "ipv4:" + ",".join(server.target for server in servers)
        gateway = stack.enter_context(processes.gateway(target, version_label="stable", models_dir=base))
        client = stack.enter_context(httpx.Client(base_url=processes.url_of(gateway), timeout=60))
        service = Service(base, program, client, servers)
        stack.callback(lambda: [server.stop() for server in service.servers])
        for name in MODELS:
            promoted = service.models("promote", name, "1")
            assert promoted.returncode == 0, promoted.stderr
        yield service


def test_promoted_and_rolled_back_under_load_without_a_failed_request_and_each_answer_names_its_maker(
    service: Service,
) -> None:
    publish(service.base, 2, dim)
    with asking(service) as answers:
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
    told = [answer.json() for answer in answers]
    assert {answer["version"] for answer in told} == {1, 2}
    for answer in told:
        brightest = {max_pixel(image["png"]) for image in answer["images"]}
        assert (max(brightest) <= DIMMED) == (answer["version"] == 2)


@contextmanager
def asking(service: Service) -> Iterator[list[httpx.Response]]:
    """Four clients ask for digits all the time while the block runs. No request may fail. Gives the answers."""
    answers: list[httpx.Response] = []
    enough = threading.Event()

    def ask() -> None:
        while not enough.is_set():
            answers.append(service.client.post("/generate", json={"seeds": list(range(len(answers) % 4 + 1))}))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        yield answers
    finally:
        enough.set()
        for thread in threads:
            thread.join()
    assert {answer.status_code for answer in answers} == {200}


def test_a_version_that_falls_short_is_refused_with_its_figures_unless_forced(service: Service) -> None:
    def worse(directory: Path) -> None:
        card = json.loads((directory / MODEL_CARD).read_text())
        card["evaluation"]["figures"]["frechet_distance"] = 18.2
        (directory / MODEL_CARD).write_text(json.dumps(card))

    publish(service.base, 4, worse)
    before = service.labels()
    refused = service.models("promote", GENERATOR, "4")
    assert refused.returncode == 2
    assert "evaluation.figures.frechet_distance is 18.2, and has to be at most 1." in refused.stderr
    assert service.labels() == before
    listed = service.models("list").stdout.splitlines()
    row = next(line for line in listed if line.split()[:2] == [GENERATOR, "4"])
    assert "Fréchet 18.2" in row
    assert row.rstrip().endswith("falls short")
    remark = f"{GENERATOR} 4 falls short: evaluation.figures.frechet_distance is 18.2, and has to be at most 1"
    assert remark in listed
    assert max(map(len, set(listed) - {remark})) <= 80
    forced = service.models("promote", GENERATOR, "4", "--force")
    assert forced.returncode == 0
    assert "anyway" in forced.stdout
    assert service.version() == 4
    assert service.models("rollback", GENERATOR).returncode == 0


def test_a_version_that_cannot_be_loaded_changes_nothing_until_it_is_repaired(service: Service) -> None:
    def broken(directory: Path) -> None:
        graph = directory / "saved_model.pb"
        graph.write_bytes(b"no graph")
        write_card(directory, {key: value for key, value in read_card(directory).items() if key != "files"})

    publish(service.base, 5, broken)
    before, serving = service.labels(), service.version()
    for _ in range(2):  # At the second time, the servers still report the first failure.
        failed = service.models("promote", GENERATOR, "5")
        assert failed.returncode == 2
        assert "can't load generator version 5" in failed.stderr
        assert "Nothing changed: generator is stable" in failed.stderr
        assert (service.labels(), service.version()) == (before, serving)
    shutil.rmtree(service.base / GENERATOR / "5")
    publish(service.base, 5)
    promoted = service.models("promote", GENERATOR, "5")
    assert promoted.returncode == 0, promoted.stderr
    assert service.version() == 5
    assert service.models("rollback", GENERATOR).returncode == 0


def test_any_version_is_promoted_forwards_and_backwards_without_a_failed_request(service: Service) -> None:
    """Version 1 has been unloaded when it is wanted again, and the servers report its END."""
    publish(service.base, 3)
    with asking(service):
        for version in (1, 2, 3, 1):
            promoted = service.models("promote", GENERATOR, str(version))
            assert promoted.returncode == 0, promoted.stderr
            assert service.version() == version
            assert service.labels()["stable"] == version


def test_a_file_that_the_servers_refuse_is_mended_by_the_next_command(service: Service) -> None:
    """Somebody has moved a label, by hand, to a version that is not loaded."""
    serving = service.version()
    wrong = service.config()
    (entry,) = [one for one in wrong.model_config_list.config if one.name == GENERATOR]
    entry.model_version_policy.specific.versions[:] = [serving, 2]
    entry.version_labels["stable"] = 2
    with connected(service.target) as servers:
        wait_until(lambda: {server.statuses(GENERATOR)[2].state for server in servers} == {"END"}, 90)
    (service.base / MODELS_CONFIG).write_text(text_format.MessageToString(wrong))
    wait_until(lambda: all("not currently available" in server.log for server in service.servers), 90)
    with pytest.raises(RollOutError, match="not currently available"), connected(service.target) as servers:
        servers[0].reload(wrong)
    command = [sys.executable, "-m", "digitgan", "models", "list", "--models", str(service.base)]
    environment = ENVIRONMENT | {"DIGITGAN_MODEL_SERVER": service.target}
    listed = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment).stdout
    (row,) = [line for line in listed.splitlines() if line.split()[:2] == [GENERATOR, str(serving)]]
    assert "stable" in row
    assert "AVAILABLE" in row
    for server in service.servers:
        assert f"{GENERATOR}: {server.target} serves stable {serving}" in listed
    promoted = service.models("promote", GENERATOR, "2")
    assert promoted.returncode == 0, promoted.stderr
    assert service.version() == 2
    assert service.labels() == {"stable": 2, "previous": serving}
    assert "and models.config says" not in service.models("list").stdout


def test_a_server_that_is_replaced_serves_the_same(service: Service) -> None:
    old = service.servers[0]
    old.stop(signal.SIGKILL)
    flags = [flag for flag in old.flags if not flag.startswith("--port=")]
    service.servers[0] = new = ModelServerProcess(service.program, [*flags, f"--port={old.target[10:]}"], old.target)
    new.wait_until_ready()
    # It listens when each model has a version; the others follow.
    wait_until(lambda: "/2" not in service.models("list").stdout, 90)
    assert "and models.config says" not in service.models("list").stdout


def test_servers_that_serve_different_versions_are_brought_together(service: Service, tmp_path: Path) -> None:
    """A third one follows a file of its own, in which another version is stable."""
    serving = service.version()
    other = service.config()
    (entry,) = [one for one in other.model_config_list.config if one.name == GENERATOR]
    entry.model_version_policy.specific.versions[:] = [3]
    entry.version_labels.clear()
    entry.version_labels["stable"] = 3
    (tmp_path / MODELS_CONFIG).write_text(text_format.MessageToString(other))
    with start(service.program, tmp_path / MODELS_CONFIG) as third:
        target = f"{service.target},{third.target}"
        listed = service.models("list", target=target).stdout
        assert "stable 2/3" in listed
        assert "stable 1/3" in listed
        assert f"{GENERATOR}: {third.target} serves stable 3, and models.config says stable {serving}" in listed
        promoted = service.models("promote", GENERATOR, "1", target=target)
        assert promoted.returncode == 0, promoted.stderr
        assert "/3" not in service.models("list", target=target).stdout
    assert service.version() == 1


def test_a_server_that_does_not_answer_is_named_and_nothing_changes(service: Service) -> None:
    before, serving = (service.base / MODELS_CONFIG).read_bytes(), service.version()
    silent = f"127.0.0.1:{free_port()}"
    for target in (silent, f"{service.target},{silent}"):
        for arguments in (("promote", GENERATOR, "2"), ("rollback", GENERATOR)):
            done = service.models(*arguments, target=target)
            assert done.returncode == 2
            assert f"no model server answers at {silent}" in done.stderr
            assert "--model-server or DIGITGAN_MODEL_SERVER" in done.stderr
            assert (service.base / MODELS_CONFIG).read_bytes() == before
        listed = service.models("list", target=target)
        assert listed.returncode == 2
        assert f"no model server answers at {silent}" in listed.stderr
        assert GENERATOR in listed.stdout
    assert service.version() == serving


def test_files_that_are_not_those_of_the_card_are_refused_even_by_force(service: Service) -> None:
    publish(service.base, 6, lambda directory: (directory / "saved_model.pb").write_bytes(b"other"))
    refused = service.models("promote", GENERATOR, "6", "--force")
    assert refused.returncode == 2
    assert "the model card says" in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("promote", GENERATOR, "99"), "holds no version 99; there are: 1, 2"),
        (("promote", GENERATOR, "1", "--model-server", "nobody"), "--model-server nobody has no address"),
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


def test_the_documented_server_starts_again_after_a_promote(program: str, tmp_path: Path) -> None:
    found = re.search(r"\$ tensorflow_model_server ((?:.*\\\n)*.*)\n", (DOCS / "how-to/deploy.md").read_text())
    assert found
    shutil.copytree(MODELS_DIR / GENERATOR, tmp_path / GENERATOR)
    server_config.write_configs(tmp_path, [GENERATOR], tmp_path, threads=2)
    port, rest_port = free_port(), free_port()
    documented = found[1].replace("\\\n", " ").replace("/models/", f"{tmp_path}/")
    flags = documented.replace("=8500", f"={port}").replace("=8501", f"={rest_port}").split()
    if program == EMBEDDED:
        flags = [
            flag for flag in flags if flag.partition("=")[0] not in ("--rest_api_port", "--monitoring_config_file")
        ]
    for labels in ({}, {"stable": 1}):
        with ModelServerProcess(program, flags, f"127.0.0.1:{port}"), connected(f"127.0.0.1:{port}") as servers:
            assert servers[0].labels(GENERATOR, ["stable"]) == labels
            RollOut(tmp_path, servers, print).promote(GENERATOR, 1, STABLE, {}, force=False)
