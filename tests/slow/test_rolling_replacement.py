"""Gateways and model servers are replaced as Kubernetes does it, and killed, under clients that never pause.

Two gateways and two model servers on this machine (Linux), with the settings of k8s/base, which are read from there:
environment, flags, readiness probes, pauses. The model servers are behind a name that resolves to those that are ready,
as a headless Service's does. Clients send at a steady rate to the gateways that the probes call ready, and learn of a
change two seconds late. A new pod comes first, then the old one leaves: a gateway by SIGTERM; a model server, once it
has slept as its preStop hook says, by SIGKILL, since TensorFlow Serving drains nothing. After that each model server is
killed once without any notice, and its address stays in the name until a probe has missed it.
"""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
import yaml

from serving.contract import MODELS
from serving.pretrained import MODELS_DIR
from serving.tf_serving.server_config import write_configs
from tests.support import gateways
from tests.support.processes import EMBEDDED, ModelServerProcess, ServerProcess, free_port
from tests.support.servers import HeadlessService, serving
from tests.support.waiting import repeating, wait_until

BASE: Final = Path(__file__).parents[2] / "k8s/base"
UNKNOWN_FLAGS: Final = ("--rest_api", "--monitoring", "--num_", "--enable_model_warmup", "--enable_profiler")
"""How those of TensorFlow Serving begin that the embedded server has no use for."""
PROPAGATION_S: Final = 2.0
"""Until a cluster's clients know that a pod is ready, or no longer ready."""
NOTICED_S: Final = 3.0
"""Until gRPC has asked the name again and connected: it does so a second after a connection broke, at the earliest."""
REPLICAS: Final = 2
CLIENTS: Final = 16
RATE: Final = 50
"""Requests a second."""


def deployment(name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns the specification of a Deployment in k8s/base, and that of its container."""
    content = yaml.safe_load_all((BASE / f"{name}.yaml").read_text())
    (spec,) = [one["spec"] for one in content if one["kind"] == "Deployment"]
    (container,) = spec["template"]["spec"]["containers"]
    return spec, container


class Cluster:
    """The pods, which are ready, and the gateways that count as ready for the client."""

    def __init__(self, stack: ExitStack, models_config: Path) -> None:
        self._stack = stack
        self._name = stack.enter_context(serving(HeadlessService()))
        self._port = free_port()
        self._hosts = (f"127.0.0.{number}" for number in count(11))
        self._leaving = ThreadPoolExecutor(8)
        self._ended = threading.Event()
        _, self._gateway = deployment("gateway")
        environment = {one["name"]: one["value"] for one in self._gateway["env"] if "value" in one}
        self._settings = {name.removeprefix("DIGITGAN_").lower(): value for name, value in environment.items()}
        own = {"model_server": self._name.target(self._port), "models_dir": MODELS_DIR}
        self._settings |= {"ready_timeout_s": "", **own}  # "": the service's default
        self._server_spec, self._server = deployment("model-server")
        self._flags = [
            flag.replace("/etc/model-server", str(models_config.parent)).replace("=8500", f"={self._port}")
            for flag in self._server["args"]
            if not flag.startswith(UNKNOWN_FLAGS)
        ]
        self.gateways: list[ServerProcess] = []
        self.servers: dict[str, ServerProcess] = {}
        self.ready: list[str] = []
        for _ in range(REPLICAS):
            self._add_server()
        for _ in range(REPLICAS):
            self._add_gateway()
        watching = threading.Thread(target=self._watch)
        stack.callback(watching.join)
        stack.callback(self._ended.set)
        watching.start()
        wait_until(lambda: len(self.ready) == REPLICAS)

    def replace_everything(self) -> None:
        """A new image of each."""
        for old in list(self.gateways):
            new = self._add_gateway()
            wait_until(lambda new=new: new.url in self.ready)  # type: ignore[misc]
            self.gateways.remove(old)
            self._leaving.submit(old.stop)
        for host in list(self.servers):
            self._add_server()
            time.sleep(self._server_spec["minReadySeconds"])
            self._leaving.submit(self._end_after_sleep, self._remove_server(host))
        self._leaving.shutdown()

    def kill_each_server(self) -> None:
        """Both model servers, one after the other, by SIGKILL."""
        probe = self._server["readinessProbe"]
        for host in list(self.servers):
            self.servers[host].process.kill()
            time.sleep(probe["periodSeconds"] * probe["failureThreshold"])
            self._remove_server(host)
            self._add_server()
            time.sleep(max(PROPAGATION_S, NOTICED_S))

    def _add_gateway(self) -> ServerProcess:
        self.gateways.append(self._stack.enter_context(gateways.gateway("", **self._settings)))
        return self.gateways[-1]

    def _watch(self) -> None:
        """Probes the gateways, and passes the result to the client as late as a cluster does."""
        probe, failed = self._gateway["readinessProbe"], dict[str, int]()
        with httpx.Client(timeout=probe["timeoutSeconds"]) as client:
            while not self._ended.wait(min(probe["periodSeconds"], 0.5)):
                urls = [gateway.url for gateway in list(self.gateways)]
                for url in urls:
                    failed[url] = 0 if _is_ready(client, url) else failed.get(url, probe["failureThreshold"]) + 1
                ready = [url for url in urls if failed[url] < probe["failureThreshold"]]
                threading.Timer(PROPAGATION_S, setattr, [self, "ready", ready]).start()

    def _add_server(self) -> None:
        """Starts one; it counts as ready when it listens, which it does when its models are loaded."""
        host = next(self._hosts)
        server = ModelServerProcess(EMBEDDED, [f"--host={host}", *self._flags], f"{host}:{self._port}")
        self.servers[host] = self._stack.enter_context(server)
        self._name.addresses = list(self.servers)

    def _remove_server(self, host: str) -> ServerProcess:
        server = self.servers.pop(host)
        self._name.addresses = list(self.servers)
        return server

    def _end_after_sleep(self, server: ServerProcess) -> None:
        time.sleep(self._server["lifecycle"]["preStop"]["sleep"]["seconds"])
        server.process.kill()


def _is_ready(client: httpx.Client, url: str) -> bool:
    try:
        return client.get(f"{url}/healthz/ready").status_code == 200
    except httpx.HTTPError:
        return False


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    directory = tmp_path_factory.mktemp("cluster")
    write_configs(directory, MODELS, MODELS_DIR, threads=2)
    with ExitStack() as stack:
        yield Cluster(stack, directory / "models.config")


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("work", [Cluster.replace_everything, Cluster.kill_each_server])
def test_no_request_fails_meanwhile(cluster: Cluster, work: Callable[[Cluster], None]) -> None:
    """There are RATE of them a second."""
    numbers = count()
    # Never expiring: httpx may close an expired connection that another thread has just taken.
    with httpx.Client(timeout=60, limits=httpx.Limits(max_connections=None, keepalive_expiry=None)) as client:

        def ask() -> str:
            time.sleep(CLIENTS / RATE)
            number = next(numbers)
            try:
                answer = client.get(f"{cluster.ready[number % len(cluster.ready)]}/digits/{number}.png")
            except (httpx.HTTPError, ZeroDivisionError) as error:
                return repr(error)
            return "" if answer.status_code == 200 else answer.text

        with repeating(ask, CLIENTS) as answers:
            work(cluster)
    assert set(answers) == {""}
