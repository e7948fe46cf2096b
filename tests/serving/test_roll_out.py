"""``digitgan models``: promoted and rolled back by label, on two model servers, under a client that never pauses."""

import base64
import re
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner, Result

from digitgan.cli import app
from serving import apis
from serving.contract import GENERATOR, MODELS
from serving.errors import UserError
from serving.pretrained import MODELS_DIR
from serving.tf_serving import model_config, server_config
from serving.tf_serving.server_config import MODELS_CONFIG
from serving.versions.model_card import read_card, write_card
from serving.versions.roll_out import STABLE, RollOut, RollOutError, connected
from tests.serving.model_server import saved_models
from tests.support import gateways, indexed_models
from tests.support.pictures import pixels_of
from tests.support.pretrained import pretrained
from tests.support.processes import EMBEDDED, PROGRAM, ModelServerProcess, free_port
from tests.support.waiting import repeating, wait_until

POLL_SECONDS = "0.25" if PROGRAM == EMBEDDED else "1"
"""How often the servers look for versions and read the file: TensorFlow Serving takes whole seconds only."""


@dataclass
class Service:
    base: Path
    client: httpx.Client
    servers: list[ModelServerProcess]

    @property
    def target(self) -> str:
        return "ipv4:" + ",".join(server.target for server in self.servers)

    def models(self, *arguments: str, target: str | None = None, accepted: bool = True) -> Result:
        """Runs a command in this process, after which every model server must still accept the file."""
        environment = {"COLUMNS": "80", "DIGITGAN_MODEL_SERVER": target or self.target}
        polling = [] if arguments[0] == "list" else ["--poll-seconds", POLL_SECONDS]
        command = ["models", *arguments, "--models", str(self.base), *polling]
        ran = CliRunner().invoke(app, command, env=environment)
        assert isinstance(ran.exception, UserError | None), ran.exception
        with connected(self.target) as servers:
            for server in servers if accepted else ():
                server.reload(model_config.read_proto(self.base / MODELS_CONFIG))
        return ran

    def promote(self, version: int) -> None:
        """Makes a version of the generator the stable one, and asserts that it serves."""
        assert self.models("promote", GENERATOR, str(version)).exception is None
        assert self.version() == version
        assert self.labels()["stable"] == version

    def labelled(self, **labels: int) -> apis.ModelServerConfig:
        """Returns a ``models.config`` in which the generator has these labels."""
        labelled = {name: {"stable": 1} for name in MODELS} | {GENERATOR: labels}
        return server_config.models_config(MODELS, self.base, labelled)

    def version(self) -> int:
        answer = self.client.post("/generate", json={"seeds": [7]})
        assert answer.status_code == 200, answer.text
        return int(answer.json()["version"])

    def labels(self) -> dict[str, int]:
        """Returns the generator's labels in ``models.config``."""
        return RollOut(self.base, (), print).labels(GENERATOR)


def publish(base: Path, version: int, change: Callable[[Path], object] = lambda _: None) -> None:
    """Publishes the package's generator as a version of that number, changed."""
    saved_models.publish(pretrained(GENERATOR), base / GENERATOR, version, change)


def mark(version: Path) -> None:
    """Replaces a generator by one that sets the first pixel to 1, so that an image shows which version made it."""
    card = read_card(version)
    shutil.rmtree(version)
    indexed_models.save_generator(version, shift=1, indexed=None)
    write_card(version, card)


def start(models_config: Path, *flags: str) -> ModelServerProcess:
    """Returns a model server on a port of its own, which does not retry to load a broken version."""
    port = free_port()
    all_flags = [
        f"--port={port}",
        f"--model_config_file={models_config}",
        f"--file_system_poll_wait_seconds={POLL_SECONDS}",
        "--max_num_load_retries=0",
        "--allow_version_labels_for_unavailable_models=true",
        "--enable_serialization_as_tensor_content=true",
        *flags,
    ]
    return ModelServerProcess(PROGRAM, all_flags, f"127.0.0.1:{port}")


@pytest.fixture(scope="module")
def two_servers() -> Iterator[Service]:
    """Two model servers that poll one models.config. The generator has versions 1, 2, 3, and a damaged 6."""
    with ExitStack() as stack:
        base = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for name in MODELS:
            saved_models.publish(pretrained(name), base / name, 1)
        publish(base, 2)
        publish(base, 3)
        server_config.write_configs(base, MODELS, base, threads=2)
        polling = f"--model_config_file_poll_wait_seconds={POLL_SECONDS}"
        servers = [start(base / MODELS_CONFIG, polling) for _ in range(2)]
        for server in servers:
            stack.enter_context(server)
        target = "ipv4:" + ",".join(server.target for server in servers)
        client = stack.enter_context(gateways.serving(target, version_label="stable", models_dir=base))
        service = Service(base, client, servers)
        stack.callback(lambda: [server.stop() for server in service.servers])
        for name in MODELS:
            assert service.models("promote", name, "1").exception is None
        publish(base, 6, lambda version: (version / "saved_model.pb").write_bytes(b"other"))
        yield service


@pytest.fixture
def service(two_servers: Service) -> Service:
    """The two servers with version 1 of each model stable."""
    if two_servers.version() != 1:
        two_servers.promote(1)
    return two_servers


def test_roll_out_and_roll_back_fail_no_request_and_each_answer_names_its_maker(service: Service) -> None:
    publish(service.base, 7, mark)
    numbers = count()
    with repeating(
        lambda: service.client.post("/generate", json={"seeds": list(range(next(numbers) % 4 + 1))}), clients=4
    ) as answers:
        assert service.models("promote", GENERATOR, "newest", "--canary").exception is None
        assert service.labels().items() >= {"stable": 1, "canary": 7}.items()
        named = service.client.post("/generate", json={"seeds": [7], "version": 7})
        assert named.json()["version"] == 7
        assert service.version() == 1
        service.promote(7)
        assert service.labels() == {"stable": 7, "previous": 1}
        assert service.models("rollback", GENERATOR).exception is None
        assert service.version() == 1
        assert service.labels() == {"stable": 1, "previous": 7}
    assert {answer.status_code for answer in answers} == {200}
    bodies = [answer.json() for answer in answers]
    assert {answer["version"] for answer in bodies} == {1, 7}
    for answer in bodies:
        firsts = {pixels_of(base64.b64decode(image["png"]))[0, 0] for image in answer["images"]}
        assert firsts == {answer["version"] == 7}


def test_a_version_that_falls_short_is_refused_with_its_figures_unless_forced(service: Service) -> None:
    def worse(directory: Path) -> None:
        card = read_card(directory)
        card["evaluation"]["figures"]["frechet_distance"] = 18.2
        write_card(directory, card)

    publish(service.base, 4, worse)
    before = service.labels()
    refused = service.models("promote", GENERATOR, "4", target="127.0.0.1:9")  # no server is needed for that
    assert "evaluation.figures.frechet_distance is 18.2, and has to be at most 1." in str(refused.exception)
    assert service.labels() == before
    listed = service.models("list").stdout.splitlines()
    row = next(line for line in listed if line.split()[:2] == [GENERATOR, "4"])
    assert "Fréchet 18.2" in row
    assert row.rstrip().endswith("falls short")
    remark = f"{GENERATOR} 4 falls short: evaluation.figures.frechet_distance is 18.2, and has to be at most 1"
    assert remark in listed
    assert max(map(len, set(listed) - {remark})) <= 80
    forced = service.models("promote", GENERATOR, "4", "--force")
    assert forced.exception is None
    assert "anyway" in forced.stdout
    assert service.version() == 4
    assert service.models("rollback", GENERATOR).exception is None


def test_a_version_that_cannot_be_loaded_changes_nothing_until_it_is_repaired(service: Service) -> None:
    def broken(directory: Path) -> None:
        saved_models.garble_graph(directory)
        write_card(directory, read_card(directory))

    publish(service.base, 5, broken)
    before = service.labels()
    for _ in range(2):  # At the second time, the servers still report the first failure.
        failed = service.models("promote", GENERATOR, "5")
        assert "can't load generator version 5" in str(failed.exception)
        assert "Nothing changed: generator is stable" in str(failed.exception)
        assert (service.labels(), service.version()) == (before, 1)
    shutil.rmtree(service.base / GENERATOR / "5")
    publish(service.base, 5)
    service.promote(5)


def test_a_file_that_the_servers_refuse_is_mended_by_the_next_command(service: Service) -> None:
    """The file was edited by hand: a label is at a version that is not loaded."""
    for version in (2, 3, 1):
        service.promote(version)
    wrong = service.labelled(stable=2, previous=1)
    with connected(service.target) as servers:
        wait_until(lambda: {server.statuses(GENERATOR)[2].state for server in servers} == {"END"})
    server_config.write_models_config(service.base, wrong)
    wait_until(lambda: all("not currently available" in server.log for server in service.servers))
    with pytest.raises(RollOutError, match="not currently available"), connected(service.target) as servers:
        servers[0].reload(wrong)
    listed = service.models("list", accepted=False).stdout
    (row,) = [line for line in listed.splitlines() if line.split()[:2] == [GENERATOR, "1"]]
    assert "stable" in row
    assert "AVAILABLE" in row
    for server in service.servers:
        assert f"{GENERATOR}: {server.target} serves stable 1" in listed
    service.promote(2)
    assert service.labels() == {"stable": 2, "previous": 1}
    assert "and models.config says" not in service.models("list").stdout


def test_a_server_that_is_replaced_serves_the_same(service: Service) -> None:
    old = service.servers[0]
    old.stop(signal.SIGKILL)
    service.servers[0] = new = ModelServerProcess(PROGRAM, old.flags, old.target)
    new.wait_until_ready()
    # It listens when each model has a version; the others follow.
    wait_until(lambda: "and models.config says" not in service.models("list").stdout)


def test_servers_that_serve_different_versions_are_brought_together(service: Service, tmp_path: Path) -> None:
    """A third one follows a file of its own, in which another version is stable."""
    server_config.write_models_config(tmp_path, service.labelled(stable=3))
    with start(tmp_path / MODELS_CONFIG) as third:
        target = f"{service.target},{third.target}"
        listed = service.models("list", target=target).stdout
        assert f"{GENERATOR}: {third.target} serves stable 3, and models.config says stable 1" in listed
        assert service.models("promote", GENERATOR, "1", target=target).exception is None
        assert "and models.config says" not in service.models("list", target=target).stdout
    assert service.version() == 1


def test_a_server_that_does_not_answer_is_named_and_nothing_changes(service: Service) -> None:
    before = (service.base / MODELS_CONFIG).read_bytes()
    silent = f"127.0.0.1:{free_port()}"
    for arguments in (("promote", GENERATOR, "2"), ("rollback", GENERATOR), ("list",)):
        done = service.models(*arguments, target=f"{service.target},{silent}")
        assert f"no model server answers at {silent}" in str(done.exception)
        assert "--model-server or DIGITGAN_MODEL_SERVER" in str(done.exception)
        assert (service.base / MODELS_CONFIG).read_bytes() == before
    assert GENERATOR in done.stdout
    assert service.version() == 1


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("promote", GENERATOR, "6", "--force"), "the model card says"),
        (("promote", GENERATOR, "99"), "holds no version 99; there are: 1, 2"),
        (("promote", GENERATOR, "1", "--model-server", "absent"), "--model-server absent has no address"),
        (("promote", GENERATOR, "latest"), "VERSION is a number or 'newest', not 'latest'"),
        (("promote", "painter", "newest"), "painter holds no version"),
        (("promote", "painter", "1"), "painter holds no version 1; there are: none"),
        (("rollback", "painter"), "has no model painter; it has: generator, discriminator, classifier"),
        (("rollback", "discriminator"), "has no version labelled previous"),
    ],
)
def test_a_mistake_is_one_sentence(service: Service, arguments: tuple[str, ...], error: str) -> None:
    assert error in str(service.models(*arguments).exception)


def test_export_keeps_the_labels(service: Service) -> None:
    before = service.labels()
    server_config.write_configs(service.base, MODELS, service.base, threads=2)
    assert service.labels() == before


def test_the_documented_server_starts_again_after_a_promote(tmp_path: Path) -> None:
    page = Path(__file__).parents[2] / "docs/how-to/deploy.md"
    found = re.search(r"\$ tensorflow_model_server ((?:.*\\\n)*.*)\n", page.read_text())
    assert found
    shutil.copytree(MODELS_DIR / GENERATOR, tmp_path / GENERATOR)
    server_config.write_configs(tmp_path, [GENERATOR], tmp_path, threads=2)
    port, rest_port = free_port(), free_port()
    documented = found[1].replace("\\\n", " ").replace("/models/", f"{tmp_path}/")
    flags = documented.replace("=8500", f"={port}").replace("=8501", f"={rest_port}").split()
    if PROGRAM == EMBEDDED:
        flags = [flag for flag in flags if not flag.startswith(("--rest_api_port", "--monitoring_config_file"))]
    for labels in ({}, {"stable": 3}):
        with ModelServerProcess(PROGRAM, flags, f"127.0.0.1:{port}"), connected(f"127.0.0.1:{port}") as servers:
            assert servers[0].labels(GENERATOR, ["stable"]) == labels
            RollOut(tmp_path, servers, print).promote(GENERATOR, 3, STABLE, {}, force=False)
