"""ModelService.HandleReloadConfigRequest."""

from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from tests.serving.model_server import saved_models
from tests.serving.model_server.client import SECONDS, Client, config, connected, refused, server_process
from tests.support.waiting import wait_until

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
