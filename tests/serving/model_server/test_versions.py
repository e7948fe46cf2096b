"""The life of versions: found, loaded, swapped, refused, deleted."""

import itertools
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import numpy as np
import pytest

from tests.serving.model_server import saved_models
from tests.serving.model_server.client import Client, refused
from tests.serving.model_server.conftest import Templates
from tests.serving.model_server.process import config, connected, server_process

DATA_LOSS, OUT_OF_RANGE, NOT_FOUND, INVALID_ARGUMENT = 15, 11, 5, 3
BREAKAGES = {
    "garbled graph": (saved_models.garble_graph, DATA_LOSS),
    "no graph": (saved_models.remove_graph, NOT_FOUND),
    "short variables": (saved_models.cut_variables, OUT_OF_RANGE),
    "failing warm-up": (saved_models.add_failing_warmup, INVALID_ARGUMENT),
    "cut warm-up": (saved_models.cut_warmup, DATA_LOSS),
}


@dataclass
class Bench:
    """A server with a model for each test, each starting with version 1: x / 2 + 2."""

    client: Client
    root: Path
    templates: Templates
    names: Iterator[str]
    polls: Iterator[int] = field(default_factory=lambda: itertools.count(2))

    def model(self) -> tuple[str, Path]:
        """A model that no test has used: its name and base path."""
        name = next(self.names)
        return name, self.root / name

    def wait_for_polls(self, count: int = 2) -> None:
        """Waits until the server has looked for versions this often, by showing it new ones."""
        for version in itertools.islice(self.polls, count):
            saved_models.publish(self.templates.half_plus_two, self.root / "clock", version)
            self.client.wait_for_states("clock", {**dict.fromkeys(range(1, version), "END"), version: "AVAILABLE"})


@pytest.fixture(scope="module")
def bench(program: str, templates: Templates, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    root = tmp_path_factory.mktemp("life")
    names = [f"model_{number}" for number in range(14)]
    for name in ("clock", *names):
        saved_models.publish(templates.half_plus_two, root / name, 1)
    with ExitStack() as stack:
        models_config = config({name: root / name for name in ("clock", *names)})
        server = stack.enter_context(server_process(program, models_config))
        yield Bench(stack.enter_context(connected(server)), root, templates, iter(names))


@contextmanager
def asking(ask: Callable[[], tuple[float, int]]) -> Iterator[list[tuple[float, int]]]:
    """Asks all the time while the block runs, and fails if an answer failed. Gives the answers."""
    answers: list[tuple[float, int]] = []
    errors: list[grpc.RpcError] = []
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            try:
                answers.append(ask())
            except grpc.RpcError as error:
                errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield answers
    finally:
        stop.set()
        thread.join()
    assert errors == []


def test_a_new_version_takes_over_without_a_failed_request(bench: Bench) -> None:
    name, base_path = bench.model()
    with asking(lambda: bench.client.half_plus(name)) as answers:
        saved_models.publish(bench.templates.half_plus_three, base_path, 2)
        bench.client.wait_for_states(name, {2: "AVAILABLE", 1: "END"})
        bench.client.half_plus(name)
    assert set(answers) == {(2.5, 1), (3.5, 2)}
    assert answers == sorted(answers)
    with refused(grpc.StatusCode.NOT_FOUND):
        bench.client.half_plus(name, version=1)


def test_deleting_the_newest_version_brings_the_older_one_back_first(bench: Bench) -> None:
    name, base_path = bench.model()
    newest = saved_models.publish(bench.templates.half_plus_three, base_path, 2)
    bench.client.wait_for_states(name, {2: "AVAILABLE", 1: "END"})
    with asking(lambda: bench.client.half_plus(name)) as answers:
        shutil.rmtree(newest)
        bench.client.wait_for_states(name, {2: "END", 1: "AVAILABLE"})
        bench.client.half_plus(name)
    assert answers == sorted(answers, reverse=True)
    assert answers[-1] == (2.5, 1)


def test_deleting_all_versions_unloads_the_model(bench: Bench) -> None:
    name, base_path = bench.model()
    shutil.rmtree(base_path / "1")
    bench.client.wait_for_states(name, {1: "END"})
    with refused(grpc.StatusCode.NOT_FOUND, name):
        bench.client.half_plus(name)
    saved_models.publish(bench.templates.half_plus_three, base_path, 1)
    bench.client.wait_for_states(name, {1: "AVAILABLE"})
    assert bench.client.half_plus(name) == (3.5, 1)


@pytest.mark.parametrize("breakage", BREAKAGES)
def test_a_broken_version_ends_with_its_error_and_the_old_one_serves_on(bench: Bench, breakage: str) -> None:
    break_it, code = BREAKAGES[breakage]
    name, base_path = bench.model()
    broken = bench.root / f"{name}.broken"
    shutil.copytree(bench.templates.half_plus_three, broken)
    break_it(broken)
    with asking(lambda: bench.client.half_plus(name)) as answers:
        broken = broken.rename(base_path / "2")
        bench.client.wait_for_states(name, {2: "END", 1: "AVAILABLE"})
    assert set(answers) == {(2.5, 1)}
    newest, oldest = bench.client.statuses(name)
    assert newest.code == code
    assert newest.message
    assert oldest.code == 0
    saved_models.publish(bench.templates.half_plus_three, base_path, 3)
    bench.client.wait_for_states(name, {3: "AVAILABLE", 2: "END", 1: "END"})
    assert bench.client.statuses(name)[1] == newest


def test_a_version_without_its_variables_is_available_and_fails_its_requests(bench: Bench) -> None:
    name, base_path = bench.model()
    broken = bench.root / f"{name}.broken"
    shutil.copytree(bench.templates.half_plus_three, broken)
    saved_models.remove_variables(broken)
    broken.rename(base_path / "2")
    bench.client.wait_for_states(name, {2: "AVAILABLE", 1: "END"})
    with refused(grpc.StatusCode.FAILED_PRECONDITION, "Could not find variable"):
        bench.client.half_plus(name)


def test_a_broken_version_is_not_tried_again(bench: Bench) -> None:
    name, base_path = bench.model()
    broken = bench.root / f"{name}.broken"
    shutil.copytree(bench.templates.half_plus_three, broken)
    saved_models.garble_graph(broken)
    broken = broken.rename(base_path / "2")
    bench.client.wait_for_states(name, {2: "END", 1: "AVAILABLE"})
    good = (bench.templates.half_plus_three / "saved_model.pb").read_bytes()
    with (broken / "saved_model.pb").open("r+b") as graph:
        graph.truncate(0)
        graph.write(good)
    bench.wait_for_polls()
    assert bench.client.states(name) == {2: "END", 1: "AVAILABLE"}


def test_a_version_is_available_after_its_warm_up(bench: Bench) -> None:
    name, base_path = bench.model()
    warm = bench.root / f"{name}.warm"
    shutil.copytree(bench.templates.half_plus_three, warm)
    saved_models.write_warmup(warm, [{"x": np.zeros(size, np.float32)} for size in (1, 2, 4)])
    warm.rename(base_path / "2")
    bench.client.wait_for_states(name, {2: "AVAILABLE", 1: "END"})
    assert bench.client.half_plus(name) == (3.5, 2)


def test_what_is_not_called_by_a_number_is_no_version(bench: Bench) -> None:
    name, base_path = bench.model()
    for other in ("2.tmp", "v3", "latest", "4a"):
        shutil.copytree(bench.templates.half_plus_three, base_path / other)
    bench.wait_for_polls()
    assert bench.client.states(name) == {1: "AVAILABLE"}
