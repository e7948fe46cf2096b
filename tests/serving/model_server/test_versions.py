"""The life of versions: found, loaded, swapped, refused, deleted, and chosen by HandleReloadConfigRequest."""

import itertools
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest

from tests.serving.model_server.client import SECONDS, Client, config, connected, refused, server_process
from tests.support import saved_models
from tests.support.processes import EMBEDDED, PROGRAM, repeating, wait_until


def cut_warmup(saved_model: Path) -> None:
    path = saved_models.write_warmup(saved_model, "x")
    path.write_bytes(path.read_bytes()[:-1])


BREAKAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "garbled graph": (saved_models.garble_graph, "DATA_LOSS"),
    "no graph": (lambda path: (path / "saved_model.pb").unlink(), "NOT_FOUND"),
    "short variables": (lambda path: os.truncate(path / saved_models.VARIABLES, 1), "OUT_OF_RANGE"),
    "failing warm-up": (lambda path: saved_models.write_warmup(path, "x", "wrong"), "INVALID_ARGUMENT"),
    "cut warm-up": (cut_warmup, "DATA_LOSS"),
}


@dataclass
class Model:
    """A model that no other test uses, with version 1: x / 2 + 2."""

    client: Client
    name: str
    base_path: Path
    half_plus: dict[int, Path]

    def publish(self, version: int, change: Callable[[Path], object] = lambda _: None) -> Path:
        """Publishes a version, x / 2 + 3, with a change."""
        return saved_models.publish(self.half_plus[3], self.base_path, version, change)

    def wait_for(self, states: dict[int, str]) -> None:
        self.client.wait_for_states(self.name, states)

    def answer(self) -> tuple[float, int]:
        """Returns the result for 1, and the version that gave it."""
        return self.client.half_plus(self.name)


@pytest.fixture(scope="module")
def unused_models(half_plus: dict[int, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Iterator[Model]]:
    """Gives one model of a server after the other."""
    root = tmp_path_factory.mktemp("life")
    names = [f"model_{number}" for number in range(12)]
    for name in names:
        saved_models.publish(half_plus[2], root / name, 1)
    models_config = config({name: root / name for name in names})
    with server_process(models_config) as server, connected(server) as client:
        yield (Model(client, name, root / name, half_plus) for name in names)


@pytest.fixture
def model(unused_models: Iterator[Model]) -> Model:
    return next(unused_models)


@pytest.fixture(scope="module")
def wait_for_polls(unused_models: Iterator[Model]) -> Callable[[], None]:
    """Waits until the server has looked for versions twice, by showing it new ones."""
    clock, numbers = next(unused_models), itertools.count(2)

    def wait() -> None:
        for number in itertools.islice(numbers, 2):
            clock.publish(number)
            clock.wait_for({**dict.fromkeys(range(1, number), "END"), number: "AVAILABLE"})

    return wait


def test_a_new_version_takes_over_without_a_failed_request(model: Model) -> None:
    with repeating(model.answer) as answers:
        model.publish(2)
        model.wait_for({2: "AVAILABLE", 1: "END"})
        model.answer()
    assert set(answers) == {(2.5, 1), (3.5, 2)}
    assert answers == sorted(answers)
    with refused("NOT_FOUND"):
        model.client.half_plus(model.name, version=1)


def test_deleting_the_newest_version_brings_the_older_one_back_first(model: Model) -> None:
    newest = model.publish(2)
    model.wait_for({2: "AVAILABLE", 1: "END"})
    with repeating(model.answer) as answers:
        shutil.rmtree(newest)
        model.wait_for({2: "END", 1: "AVAILABLE"})
        model.answer()
    assert answers == sorted(answers, reverse=True)
    assert answers[-1] == (2.5, 1)


def test_deleting_all_versions_unloads_the_model(model: Model) -> None:
    shutil.rmtree(model.base_path / "1")
    model.wait_for({1: "END"})
    with refused("NOT_FOUND", model.name):
        model.answer()
    model.publish(1)
    model.wait_for({1: "AVAILABLE"})
    assert model.answer() == (3.5, 1)


@pytest.mark.parametrize("breakage", BREAKAGES)
def test_a_broken_version_ends_with_its_error_and_the_old_one_serves_on(model: Model, breakage: str) -> None:
    break_it, code = BREAKAGES[breakage]
    with repeating(model.answer) as answers:
        model.publish(2, break_it)
        model.wait_for({2: "END", 1: "AVAILABLE"})
    assert set(answers) == {(2.5, 1)}
    newest, oldest = model.client.statuses(model.name)
    assert (newest.error_code, oldest.error_code) == (code, "OK")
    assert newest.error_message
    model.publish(3)
    model.wait_for({3: "AVAILABLE", 2: "END", 1: "END"})
    assert model.client.statuses(model.name)[1] == newest


def test_a_version_without_its_variables_is_available_and_fails_its_requests(model: Model) -> None:
    model.publish(2, lambda path: shutil.rmtree(path / "variables"))
    model.wait_for({2: "AVAILABLE", 1: "END"})
    with refused("FAILED_PRECONDITION", "Could not find variable"):
        model.answer()


def test_a_broken_version_is_not_tried_again(model: Model, wait_for_polls: Callable[[], None]) -> None:
    broken = model.publish(2, saved_models.garble_graph)
    model.wait_for({2: "END", 1: "AVAILABLE"})
    shutil.copyfile(model.half_plus[3] / "saved_model.pb", broken / "saved_model.pb")
    wait_for_polls()
    model.wait_for({2: "END", 1: "AVAILABLE"})


def test_only_numbers_are_versions(model: Model, wait_for_polls: Callable[[], None]) -> None:
    names = ["2.tmp", "v3", "latest", "4a", "1.0", "1e3", "²", "٣"]
    if PROGRAM == EMBEDDED:
        names += ["0", "-1", "007", "+4", str(2**63), "9" * 200]
        (model.base_path / "5").symlink_to(model.base_path / "gone")
        (model.base_path / "6").touch()
    for other in names:
        shutil.copytree(model.half_plus[3], model.base_path / other)
    wait_for_polls()
    assert model.client.states(model.name) == {1: "AVAILABLE"}


def test_a_server_waits_for_a_base_path_says_so_and_ends_on_sigterm(
    half_plus: dict[int, Path], models: dict[str, Path], tmp_path: Path
) -> None:
    late = tmp_path / "late"
    with server_process(config({"half": models["half"], "late": late})) as server:
        wait_until(lambda: str(late) in server.log, lambda: server.log)
        assert server.process.poll() is None
        saved_models.publish(half_plus[2], late, 3)
        with connected(server) as client:
            assert client.half_plus("late") == (2.5, 3)
            assert client.half_plus("half") == (3.5, 2)
            server.process.send_signal(signal.SIGTERM)
            assert server.wait() in (0, 143, -signal.SIGTERM)


ALL = "model_version_policy { all {} }"
QUEUED_SECONDS = 3.0
"""A reload that nothing holds up takes a few milliseconds."""


def label(name: str, version: int) -> str:
    return f' version_labels {{ key: "{name}" value: {version} }}'


@pytest.fixture(scope="module")
def base_path(half_plus: dict[int, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The base path of a model with the versions 1 (+ 2), 2 (+ 3) and 10 (+ 2)."""
    base_path = tmp_path_factory.mktemp("reload") / "one"
    for version in (1, 2, 10):
        saved_models.publish(half_plus[3] if version == 2 else half_plus[2], base_path, version)
    return base_path


@pytest.fixture(scope="module")
def server(base_path: Path) -> Iterator[Client]:
    with server_process(config({"one": base_path})) as running, connected(running) as client:
        yield client


@pytest.fixture
def client(server: Client, base_path: Path) -> Client:
    """Starts each test with only version 10 of model ``one``, and no labels."""
    reload_all(server, config({"one": base_path}))
    wait_until_serves(server, "one", 10)
    return server


def reload_all(client: Client, models_config: str) -> None:
    """Reloads until all models are there: one that is still unloading may not become available at the first time."""

    def accepted() -> bool:
        error = client.reload(models_config).exception()
        assert error is None or error.code() is grpc.StatusCode.UNKNOWN, error
        return error is None

    wait_until(accepted, lambda: "the model did not become available")


def wait_until_serves(client: Client, name: str, *versions: int) -> None:
    """Waits until these versions are available, and no other."""

    def available() -> set[int]:
        return {version for version, state in client.states(name).items() if state == "AVAILABLE"}

    wait_until(lambda: available() == set(versions), lambda: f"{client.states(name)}, not {versions}")


def test_a_reload_adds_models_and_unloads_those_left_out(client: Client, base_path: Path) -> None:
    assert client.reload(config({"one": base_path, "two": base_path})).result().status.error_code == 0
    assert client.half_plus("two") == client.half_plus("one") == (2.5, 10)
    reload_all(client, config({"two": base_path}))
    wait_until_serves(client, "one")
    wait_until_serves(client, "two", 10)
    with refused("NOT_FOUND", "one"):
        client.half_plus("one")
    assert client.half_plus("two") == (2.5, 10)


@pytest.mark.parametrize(
    ("policy", "versions"),
    [
        ("latest { num_versions: 2 }", (2, 10)),
        ("specific { versions: [1, 2] }", (1, 2)),
        ("specific { versions: [1, 99] }", (1,)),
        ("all {}", (1, 2, 10)),
    ],
)
def test_policies_choose_versions(client: Client, base_path: Path, policy: str, versions: tuple[int, ...]) -> None:
    client.reload(config({"one": base_path}, {"one": f"model_version_policy {{ {policy} }}"})).result()
    wait_until_serves(client, "one", *versions)
    assert client.half_plus("one")[1] == max(versions)


def test_labels_move_between_available_versions_only(client: Client, base_path: Path) -> None:
    def reload(labels: str) -> None:
        client.reload(config({"one": base_path}, {"one": labels})).result()

    reload(ALL)
    wait_until_serves(client, "one", 1, 2, 10)
    reload(ALL + label("stable", 1) + label("canary", 2))
    assert client.half_plus("one", label="stable") == (2.5, 1)
    assert client.half_plus("one", label="canary") == (3.5, 2)
    reload(ALL + label("stable", 2))
    assert client.half_plus("one", label="stable") == (3.5, 2)
    with refused("INVALID_ARGUMENT", "Unrecognized servable version label"):
        client.half_plus("one", label="canary")
    with refused("FAILED_PRECONDITION", "99", "not currently available"):
        reload(ALL + label("stable", 99))
    assert client.half_plus("one", label="stable") == (3.5, 2)


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ("", []),
        ('model_config_list { config { name: "one" base_path: "one" model_platform: "tensorflow" } }', ["one"]),
        ("model_config_list { ONE ONE }", ["one"]),
        ('model_config_list { config { name: "one" base_path: "PATH" model_platform: "other" } }', ["other"]),
        ('model_config_list { config { name: "one" base_path: "PATH" } }', ["platform"]),
    ],
    ids=["empty", "relative path", "listed twice", "other platform", "no platform"],
)
def test_a_bad_configuration_changes_nothing(client: Client, base_path: Path, bad: str, words: list[str]) -> None:
    one = 'config { name: "one" base_path: "PATH" model_platform: "tensorflow" }'
    with refused("INVALID_ARGUMENT", *words):
        client.reload(bad.replace("ONE", one).replace("PATH", str(base_path))).result()
    assert client.half_plus("one") == (2.5, 10)


def test_a_reload_waits_for_a_base_path_that_does_not_exist_and_later_reloads_wait_for_it(
    client: Client, base_path: Path, half_plus: dict[int, Path], tmp_path: Path
) -> None:
    models_config = config({"one": base_path, "late": tmp_path / "late"})
    first, second = client.reload(models_config), client.reload(models_config)
    with refused("NOT_FOUND", "late"):
        client.half_plus("late")
    with pytest.raises(grpc.FutureTimeoutError):
        second.result(QUEUED_SECONDS)
    assert not first.done()
    assert client.half_plus("one") == (2.5, 10)
    saved_models.publish(half_plus[3], tmp_path / "late", 5)
    for reload in (first, second):
        reload.result(SECONDS)
    assert client.half_plus("late") == (3.5, 5)
