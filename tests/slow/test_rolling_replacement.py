"""Gateways and model servers are replaced as Kubernetes does it, and killed, under a client that never pauses.

Two gateways and two model servers on this machine (Linux), with the settings of k8s/base, which are read from there:
environment, flags, readiness probes, pauses. The model servers are behind a name that resolves to those that are ready,
as a headless Service's does. The client sends at a fixed rate to the gateways that the probes call ready, and learns of
a change two seconds late. A new pod comes first, then the old one leaves: a gateway by SIGTERM; a model server, once it
has slept as its preStop hook says, by SIGKILL, since TensorFlow Serving drains nothing. After that each model server is
killed once without any notice, and its address stays in the name until a probe has missed it.
"""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import httpx
import pytest
import yaml

from serving.contract import MODELS
from serving.pretrained import MODELS_DIR
from serving.tf_serving.server_config import write_configs
from tests.slow.headless_service import HeadlessService
from tests.support import gateways
from tests.support.processes import EMBEDDED, ModelServerProcess, ServerProcess
from tests.support.waiting import wait_until

BASE: Final = Path(__file__).parents[2] / "k8s/base"
UNKNOWN_FLAGS: Final = (
    "rest_api_port",
    "rest_api_num_threads",
    "monitoring_config_file",
    "num_load_threads",
    "num_unload_threads",
    "enable_model_warmup",
    "enable_profiler",
)
"""TensorFlow Serving's that the embedded server has no use for."""
PROPAGATION_S: Final = 2.0
"""Until a cluster's clients know that a pod is ready, or no longer ready."""
NOTICED_S: Final = 3.0
"""Until gRPC has asked the name again and connected: it does so a second after a connection broke, at the earliest,
whatever the pace."""
REPLICAS: Final = 2


@dataclass(frozen=True)
class Probe:
    """A readiness probe: seconds, and failures in a row."""

    period_s: float
    timeout_s: float
    failures: int


@dataclass(frozen=True)
class Settings:
    """What k8s/base says. ``pace`` shortens its pauses, and no limit."""

    gateway_env: dict[str, str]
    gateway_probe: Probe
    server_flags: list[str]
    server_probe: Probe
    server_sleep_s: float
    server_min_ready_s: float
    propagation_s: float

    @classmethod
    def of_base(cls, pace: float) -> "Settings":
        gateway, server = (_deployment(BASE / f"{name}.yaml") for name in ("gateway", "model-server"))
        (container,) = gateway["template"]["spec"]["containers"]
        env = {one["name"]: one["value"] for one in container["env"] if "value" in one}
        env["DIGITGAN_SHUTDOWN_DELAY_S"] = str(float(env["DIGITGAN_SHUTDOWN_DELAY_S"]) * pace)
        for name in ("DIGITGAN_MODEL_SERVER", "DIGITGAN_MODELS_DIR"):
            del env[name]
        (server_container,) = server["template"]["spec"]["containers"]
        flags = [arg for arg in server_container["args"] if arg[2:].split("=")[0] not in UNKNOWN_FLAGS]
        (age,) = [flag for flag in flags if flag.startswith("--grpc_channel_arguments=grpc.max_connection_age_ms=")]
        milliseconds = int(age.split("=")[2].split(",")[0])
        flags[flags.index(age)] = age.replace(f"{milliseconds},", f"{milliseconds * pace:.0f},")
        return cls(
            env,
            _probe(container),
            flags,
            _probe(server_container),
            server_container["lifecycle"]["preStop"]["sleep"]["seconds"] * pace,
            server["minReadySeconds"] * pace,
            PROPAGATION_S * pace,
        )


def _deployment(path: Path) -> dict[str, Any]:
    (found,) = [one for one in yaml.safe_load_all(path.read_text()) if one["kind"] == "Deployment"]
    spec: dict[str, Any] = found["spec"]
    return spec


def _probe(container: dict[str, Any]) -> Probe:
    probe = container["readinessProbe"]
    return Probe(probe["periodSeconds"], probe["timeoutSeconds"], probe["failureThreshold"])


@dataclass
class Cluster:
    """The pods, and the addresses that count as ready."""

    settings: Settings
    stack: ExitStack
    name: HeadlessService
    models_config: Path
    gateways: list[ServerProcess] = field(default_factory=list)
    servers: dict[str, ServerProcess] = field(default_factory=dict)
    ready: list[str] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port = free.getsockname()[1]
        self._hosts = (f"127.0.0.{number}" for number in count(11))
        self._leaving = ThreadPoolExecutor(8)

    # Gateways

    def add_gateway(self) -> ServerProcess:
        environment = self.settings.gateway_env
        settings = {name.removeprefix("DIGITGAN_").lower(): value for name, value in environment.items()}
        process = gateways.gateway(self.name.target(self._port), **settings)
        self.gateways.append(self.stack.enter_context(process))
        return process

    def watch(self) -> None:
        """Probes the gateways, and tells the client with the delay that a cluster has."""
        probe, failed = self.settings.gateway_probe, dict[str, int]()
        with httpx.Client(timeout=probe.timeout_s) as client:
            while not self.ended.wait(min(probe.period_s, 0.5)):
                urls = [gateway.url for gateway in list(self.gateways)]
                for url in urls:
                    failed[url] = 0 if _is_ready(client, url) else failed.get(url, probe.failures) + 1
                ready = [url for url in urls if failed[url] < probe.failures]
                threading.Timer(self.settings.propagation_s, self._tell, [ready]).start()

    def _tell(self, ready: list[str]) -> None:
        self.ready = ready

    def replace_gateways(self) -> None:
        for old in list(self.gateways):
            new = self.add_gateway()
            wait_until(lambda new=new: new.url in self.ready)  # type: ignore[misc]
            self.gateways.remove(old)
            self._leaving.submit(old.stop)

    # Model servers

    def add_server(self) -> None:
        """Starts one; it counts as ready when it listens, which it does when its models are loaded."""
        host = next(self._hosts)
        flags = [
            flag.replace("/etc/model-server", str(self.models_config.parent)).replace("=8500", f"={self._port}")
            for flag in self.settings.server_flags
        ]
        process = self.stack.enter_context(
            ModelServerProcess(EMBEDDED, [f"--host={host}", *flags], f"{host}:{self._port}")
        )
        self.servers[host] = process
        self._resolve()

    def _resolve(self) -> None:
        self.name.addresses = list(self.servers)

    def replace_servers(self) -> None:
        for host in list(self.servers):
            self.add_server()
            time.sleep(self.settings.server_min_ready_s)
            old = self.servers.pop(host)
            self._resolve()
            self._leaving.submit(self._end_after_sleep, old)

    def _end_after_sleep(self, server: ServerProcess) -> None:
        time.sleep(self.settings.server_sleep_s)
        server.process.kill()

    def kill_servers(self) -> None:
        probe = self.settings.server_probe
        for host in list(self.servers):
            self.servers[host].process.kill()
            time.sleep(probe.period_s * probe.failures)
            del self.servers[host]
            self._resolve()
            self.add_server()
            time.sleep(max(self.settings.propagation_s, NOTICED_S))

    def settle(self) -> None:
        """Waits until every replaced process has ended."""
        self._leaving.shutdown()


def _is_ready(client: httpx.Client, url: str) -> bool:
    try:
        return client.get(f"{url}/healthz/ready").status_code == 200
    except httpx.HTTPError:
        return False


@contextmanager
def cluster(settings: Settings) -> Iterator[Cluster]:
    """Gives a cluster whose pods are ready."""
    with ExitStack() as stack:
        name = stack.enter_context(HeadlessService())
        directory = Path(stack.enter_context(TemporaryDirectory()))
        write_configs(directory, MODELS, MODELS_DIR, threads=2)
        made = Cluster(settings, stack, name, directory / "models.config")
        for _ in range(REPLICAS):
            made.add_server()
        for _ in range(REPLICAS):
            made.add_gateway()
        watching = threading.Thread(target=made.watch)
        watching.start()
        try:
            wait_until(lambda: len(made.ready) == REPLICAS)
            yield made
        finally:
            made.ended.set()
            watching.join()


@dataclass
class Outcome:
    """How many requests were sent, and what became of those that failed."""

    sent: int = 0
    failures: list[str] = field(default_factory=list)


def measure(work: Callable[[Cluster], None], made: Cluster, requests: int, rate: float) -> Outcome:
    """Sends ``requests`` at ``rate`` a second, and more until ``work`` on the cluster is done."""
    outcome = Outcome()
    # Never expiring: httpx may close an expired connection that another thread has just taken.
    limits = httpx.Limits(max_connections=64, keepalive_expiry=None)
    with ThreadPoolExecutor(64) as pool, httpx.Client(timeout=60, limits=limits) as client:

        def ask(number: int) -> None:
            try:
                answer = client.get(f"{made.ready[number % len(made.ready)]}/digits/{number}.png")
                if answer.status_code != 200:
                    outcome.failures.append(answer.text)
            except (httpx.HTTPError, ZeroDivisionError) as error:
                outcome.failures.append(repr(error))

        working = threading.Thread(target=work, args=(made,))
        working.start()
        began = time.perf_counter()
        for number in count():
            time.sleep(max(0.0, began + number / rate - time.perf_counter()))
            pool.submit(ask, number)
            outcome.sent += 1
            if number + 1 >= requests and not working.is_alive():
                break
    return outcome


def replace_everything(made: Cluster) -> None:
    """A new image of each."""
    made.replace_gateways()
    made.replace_servers()
    made.settle()


def kill_each_server(made: Cluster) -> None:
    """Both model servers, one after the other, by SIGKILL."""
    made.kill_servers()


@pytest.fixture(scope="module")
def made() -> Iterator[Cluster]:
    with cluster(Settings.of_base(pace=1.0)) as made:
        yield made


@pytest.mark.timeout(1800)
def test_nothing_is_lost_while_everything_is_replaced(made: Cluster) -> None:
    before = {process.process.pid for process in (*made.gateways, *made.servers.values())}
    outcome = measure(replace_everything, made, requests=3000, rate=50)
    assert outcome.sent >= 3000
    assert outcome.failures == []
    assert before.isdisjoint({process.process.pid for process in (*made.gateways, *made.servers.values())})


@pytest.mark.timeout(1800)
def test_nothing_is_lost_when_each_model_server_is_killed(made: Cluster) -> None:
    outcome = measure(kill_each_server, made, requests=200, rate=50)
    assert outcome.failures == []
