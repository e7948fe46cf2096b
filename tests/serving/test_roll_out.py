"""Versions on disk, and ``digitgan models``: their labels on two model servers, under a client that never pauses."""

import base64
import re
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import count
from pathlib import Path, PurePosixPath

import httpx
import pytest
from typer.testing import CliRunner, Result

from digitgan.cli import app
from serving import apis
from serving.contract import CLASSIFIER, DISCRIMINATOR, GENERATOR, MODELS
from serving.errors import UserError
from serving.pretrained import MODELS_DIR
from serving.storage import find_versions
from serving.tf_serving import model_config, server_config
from serving.tf_serving.model_config import ConfigError, ModelConfig
from serving.tf_serving.server_config import MODELS_CONFIG
from serving.versions.model_card import CardError, read_card, verify, write_card
from serving.versions.model_copy import add_versions
from serving.versions.quality_gate import Thresholds, read_thresholds, shortfalls
from serving.versions.roll_out import STABLE, RollOut, RollOutError, connected
from tests.support import gateways, saved_models
from tests.support.pictures import pixels_of
from tests.support.pretrained import VERSIONS, pretrained
from tests.support.processes import EMBEDDED, PROGRAM, ModelServerProcess, free_port, repeating, wait_until
from training.config import DEFAULT_PRESET

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
    saved_models.save_generator(version, shift=1, indexed=None)
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


def test_a_change_during_another_one_is_refused(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each writes the labels of all models: one of two changes would be lost."""
    refused: list[Result] = []
    monkeypatch.setattr(RollOut, "promote", lambda *_, **__: refused.append(service.models("rollback", GENERATOR)))
    assert service.models("promote", GENERATOR, "2").exception is None
    assert "another command is changing the labels" in str(refused[0].exception)


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


VERSION_0 = b" model_version_policy { specific { versions: 0 } }"


def one_model(fields: bytes) -> bytes:
    return b'model_config_list { config { model_platform: "tensorflow" ' + fields + b" } }"


@pytest.mark.parametrize(
    ("read", "content", "complaint"),
    [
        (model_config.read, None, "No such file"),
        (model_config.read, b"\xff\xfe", "codec can't decode"),
        (model_config.read, b"", "no model_config_list"),
        (model_config.read, b"model_config_list {", "Expected"),
        (model_config.read, b"model_config_list { config { nam: 'a' } }", "nam"),
        (model_config.read, one_model(b'base_path: "/m"'), "no name"),
        (model_config.read, one_model(b'name: "m"'), "absolute"),
        (model_config.read, one_model(b'name: "m" base_path: "/m"' + VERSION_0), "from 1 upwards"),
        (read_thresholds, b"{", "Expecting"),
        (read_thresholds, b"[]", "an object for each model"),
        (read_thresholds, b'{"generator": {"a.b": {}}}', "generator: a.b"),
        (read_thresholds, b'{"generator": {"a.b": {"most": 1}}}', "generator: a.b"),
        (read_thresholds, b'{"generator": {"a.b": {"max": "1"}}}', "generator: a.b: max: should be a number"),
        (read_thresholds, b'{"generator": {"a.b": {"min": NaN}}}', "generator: a.b: min: should be a number"),
    ],
)
def test_a_wrong_file_is_refused_with_its_reason(
    tmp_path: Path, read: Callable[[Path], object], content: bytes | None, complaint: str
) -> None:
    path = tmp_path / "file"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=rf"{path}.*: .*{complaint}"):
        read(path)


def test_a_directory_of_models_serves_each_that_has_a_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for version in ("b/1", "a/2", "a/10", "empty", "half-written/3.tmp"):
        (tmp_path / "models" / version).mkdir(parents=True)
    (tmp_path / "models" / "models.config").touch()
    monkeypatch.chdir(tmp_path)
    assert model_config.from_directory(Path("models")) == (
        ModelConfig("a", tmp_path / "models/a"),
        ModelConfig("b", tmp_path / "models/b"),
    )
    for place in (tmp_path / "models/b/1", tmp_path / "missing"):
        with pytest.raises(ConfigError, match="holds no models"):
            model_config.from_directory(place)


def add(source: Path, target: Path) -> list[str]:
    said: list[str] = []
    add_versions(source, target, PurePosixPath("/models"), said.append)
    return said


def labels(base: Path) -> dict[str, dict[str, int]]:
    return {one.name: dict(one.labels) for one in model_config.read(base / MODELS_CONFIG)}


def test_an_empty_volume_gets_the_label_stable_which_stays_when_a_missing_version_is_copied(tmp_path: Path) -> None:
    add(MODELS_DIR, tmp_path)
    assert {name: set(find_versions(tmp_path / name)) for name in MODELS} == {name: {VERSIONS[name]} for name in MODELS}
    assert labels(tmp_path) == {name: {"stable": VERSIONS[name]} for name in MODELS}
    assert {one.name: one.specific for one in model_config.read(tmp_path / MODELS_CONFIG)} == {
        name: {VERSIONS[name]} for name in MODELS
    }
    assert sorted(path.name for path in (tmp_path / GENERATOR).iterdir()) == ["3"]  # no remains of the copy
    config = (tmp_path / MODELS_CONFIG).read_bytes()
    moved = tmp_path / GENERATOR / "4"
    (tmp_path / GENERATOR / "3").rename(moved)
    inode = moved.stat().st_ino
    said = add(MODELS_DIR, tmp_path)
    assert set(find_versions(tmp_path / GENERATOR)) == {3, 4}
    assert (tmp_path / MODELS_CONFIG).read_bytes() == config
    assert moved.stat().st_ino == inode
    assert [line for line in said if "copied" in line] == ["generator version 3: copied"]


def test_another_version_of_a_number_stays_and_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add(MODELS_DIR, tmp_path)
    version = tmp_path / GENERATOR / "3"
    monkeypatch.setattr("os.fsync", lambda _: verify(version))  # A server may load it while its card is written.
    write_card(version, {**read_card(version), "preset": "another"})
    with pytest.raises(UserError, match="generator 3"):
        add(MODELS_DIR, tmp_path)
    assert read_card(version)["preset"] == "another"


def test_a_damaged_version_is_not_published(tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(MODELS_DIR, source)
    (source / GENERATOR / "3" / "saved_model.pb").write_bytes(b"short")
    with pytest.raises(CardError, match="SHA-256"):
        add(source, tmp_path / "volume")
    assert not find_versions(tmp_path / "volume" / GENERATOR)
    assert not (tmp_path / "volume" / MODELS_CONFIG).exists()


CARD = {"evaluation": {"figures": {"frechet_distance": 1.25, "coverage": float("nan")}}}


@pytest.mark.parametrize(
    ("figure", "bounds", "found"),
    [
        ("evaluation.figures.frechet_distance", {"min": 1.25, "max": 1.25}, None),
        ("evaluation.figures.frechet_distance", {"max": 1.0}, "distance is 1.25, and has to be at most 1"),
        ("evaluation.figures.frechet_distance", {"min": 1.5}, "is 1.25, and has to be at least 1.5"),
        ("evaluation.figures.coverage", {"min": 0.8}, "coverage is nan, and has to be at least 0.8"),
        ("evaluation.auc", {"min": 0.9}, "has no evaluation.auc, which has to be at least 0.9"),
        ("evaluation.figures", {"min": 0.9, "max": 2}, "figures, which has to be at least 0.9 and at most 2"),
    ],
)
def test_a_figure_passes_on_its_bound_and_not_beyond(figure: str, bounds: dict[str, float], found: str | None) -> None:
    sentences = shortfalls(CARD, {figure: bounds})
    assert len(sentences) == (found is not None)
    assert (found or "") in "".join(sentences)


RUN = {"training.images": {"min": 55_000}, "training.steps": {"min": 15_000}}
SHIPPED: dict[str, Thresholds] = {
    GENERATOR: {
        **RUN,
        "evaluation.images": {"min": 10_000},
        "evaluation.figures.frechet_distance": {"max": 0.16},
        "evaluation.figures.precision": {"min": 0.84},
        "evaluation.figures.recall": {"min": 0.84},
        "evaluation.figures.density": {"min": 0.893},
        "evaluation.figures.coverage": {"min": 0.923},
        "evaluation.figures.legible": {"min": 0.945},
        "seed_index.seeds": {"min": 65_536},
    },
    DISCRIMINATOR: {
        **RUN,
        "detector.test.auc": {"min": 0.99},
        "detector.test.expected_calibration_error": {"max": 0.015},
        **{f"detector.test.kinds.{kind}": {"min": 0.99} for kind in ("noise", "inverted", "shuffled", "blank")},
        "detector.test.kinds.upside_down": {"min": 0.82},  # all digits: a 0, 1, 3 or 8 may look real
    },
    CLASSIFIER: {
        "training.images": {"min": 55_000},
        "test.images": {"min": 10_000},
        "test.accuracy": {"min": 0.994},
        "test.expected_calibration_error": {"max": 0.01},
    },
}
"""What the models are, and how good: bounds of figures in their cards."""


@pytest.mark.parametrize("name", MODELS)
def test_the_shipped_files_are_those_of_the_model_card_which_says_how_good_they_are(name: str) -> None:
    version = pretrained(name)
    verify(version)
    card = read_card(version)
    assert shortfalls(card, SHIPPED[name]) == []
    assert read_thresholds()[name]
    if name != CLASSIFIER:
        assert card["training"]["preset"] == DEFAULT_PRESET
