"""The service under load for minutes: hostile and slow clients, and processes that are killed or replaced."""

import contextlib
import itertools
import random
import resource
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from http.client import HTTPResponse
from pathlib import Path
from typing import Any, Final

import httpx
import numpy as np
import pytest
import yaml

from api.middleware.keys import hash_of, new_key
from serving.contract import MODELS
from serving.pretrained import MODELS_DIR
from serving.tf_serving.server_config import write_configs
from tests.support import gateways
from tests.support.gateways import SLOW, GatewayClient, hanging, json_request, noise_input
from tests.support.pictures import base64_of, saved
from tests.support.processes import EMBEDDED, ModelServerProcess, ServerProcess, free_port, repeating, wait_until
from tests.support.servers import HeadlessService, serving

pytestmark = pytest.mark.timeout(3600)

NPY: Final = {"Accept": "application/x-npy"}
ZIP: Final = {"Accept": "application/zip"}
GIF: Final = {"Accept": "image/gif"}
JSON: Final = {"Content-Type": "application/json"}
STATUS_PATHS: Final = (
    *("/models", "/story", "/healthz/ready", "/metrics", "/", "/docs", "/openapi.json"),
    *("/v2", "/v2/health/ready", "/v2/models/classifier"),
)
_RANDOM: Final = np.random.default_rng(0)
NOISE: Final = _RANDOM.standard_normal((8, 100)).tolist()
IMAGES: Final = [
    saved(_RANDOM.integers(0, 256, (side, side), np.uint8), kind)
    for side in (28, 200)
    for kind in ("PNG", "JPEG", "WEBP")
]
BASE64: Final = list(map(base64_of, IMAGES))

Request = Callable[[httpx.Client, int], httpx.Response]
GOOD: Final[tuple[Request, ...]] = (
    lambda http, n: http.get(f"/digits/{n}.png", params={"scale": 1 + n % 4}),
    lambda http, n: http.post("/generate", json={"seeds": list(range(n, n + n % 40 + 1)), "labels": n % 2 == 0}),
    lambda http, n: http.post("/generate", json={"noise": NOISE[: 1 + n % 8]}, headers={"Accept": "image/png"}),
    lambda http, n: http.post("/generate", json={"count": 40, "digit": n % 10}),
    lambda http, n: http.post("/interpolate", json={"seeds": [n, n + 1], "steps": 8}),
    lambda http, n: http.post("/interpolate", json={"seeds": [n, 1], "steps": 8}, headers=GIF),
    lambda http, n: http.post("/score", files=[("images", image) for image in IMAGES]),
    lambda http, n: http.post("/score", content=IMAGES[0], headers={"Content-Type": "image/png"}),
    lambda http, n: http.post("/score", json={"images": [BASE64[n % 6]], "labels": True, "fitted_images": True}),
    lambda http, n: http.post("/v2/models/generator/infer", json=noise_input(1 + n % 8)),
    lambda http, n: http.get(STATUS_PATHS[n % len(STATUS_PATHS)]),
)
"""Requests that succeed. ``n`` is another number each time."""
STREAMS: Final[tuple[Request, ...]] = (
    lambda http, n: http.post("/generate", json={"count": 300}, headers=ZIP),
    lambda http, n: http.post("/generate", json={"count": 300}, headers=NPY),
    lambda http, n: http.post("/dataset", json={"count": 20, "first_seed": n}),
)
"""Requests that succeed. Their answers break off if the model server ends."""
BAD: Final[tuple[tuple[int, Request], ...]] = (
    (404, lambda http, n: http.get(f"/nothing/{n}")),
    (404, lambda http, n: http.get(f"/digits/{n}.png", params={"version": 1000 + n})),
    (405, lambda http, n: http.request("DELETE", "/generate")),
    (406, lambda http, n: http.post("/generate", json={"count": 1}, headers={"Accept": f"text/x-{n}"})),
    (415, lambda http, n: http.post("/score", content=b"x" * 1000, headers={"Content-Type": f"text/x-{n}"})),
    (400, lambda http, n: http.post("/generate", content=b'{"seeds": [' + b"7," * (n % 3000), headers=JSON)),
    (422, lambda http, n: http.post("/generate", json={f"field-{n}": n, "seeds": [-1]})),
    (422, lambda http, n: http.post("/generate", json={"noise": [[0.0] * 99]})),
    (422, lambda http, n: http.post("/score", files={"images": IMAGES[n % 6][: 60 + n % 60]})),
    (413, lambda http, n: http.post("/generate", content=b"[" * (9 * 2**20), headers=JSON)),
)
"""Requests with these statuses."""


@pytest.fixture(scope="module")
def model_server(sockets: Path) -> Iterator[ModelServerProcess]:
    """The embedded model server, for a process that may have many connections."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with gateways.model_server(MODELS_DIR, sockets / "load.sock") as server:
        yield server


def test_neither_process_grows(model_server: ModelServerProcess) -> None:
    """20,000 mixed requests on all routes; after the first 2,000, neither process may grow by more than 30 MB."""
    requests = [*((200, request) for request in (*GOOD, *STREAMS)), *BAD]

    def send(number: int) -> tuple[int, int, str]:
        """Sends a request. Returns the status that it should have, the one that it has, and what it was."""
        status, request = random.Random(number).choice(requests)
        answer = request(http, number)
        return status, answer.status_code, f"{answer.request.method} {answer.request.url}"

    memory: dict[str, list[int]] = {"gateway": [], "model server": []}
    with (
        gateways.serving(model_server.target, models_dir=MODELS_DIR, request_timeout_s=600) as http,
        ThreadPoolExecutor(4) as pool,
    ):
        http.timeout = 1200
        for thousand in range(20):
            sent = pool.map(send, range(1000 * thousand, 1000 * (thousand + 1)))
            assert [one for one in sent if one[0] != one[1]] == []
            for name, process in (("gateway", http.process), ("model server", model_server)):
                memory[name].append(process.resident_bytes())
            print(thousand + 1, *(f"{name} {points[-1] / 1e6:.1f} MB" for name, points in memory.items()))
    for name, points in memory.items():
        assert max(points[1:]) - points[1] < 30e6, name


def test_a_killed_model_server_gives_503_and_is_used_again_when_it_is_back(sockets: Path) -> None:
    """It is killed ten times while clients send requests without a pause."""
    with ExitStack() as stack:

        def start() -> ModelServerProcess:
            return stack.enter_context(gateways.model_server(MODELS_DIR, sockets / "killed.sock"))

        server = start()
        http = stack.enter_context(gateways.serving(server.target))
        numbers = itertools.count()

        def send() -> str:
            """Sends a request. Returns the status, and what problem it is; or all that is wrong."""
            answer = random.choice(GOOD)(http, next(numbers))
            if answer.status_code == 200:
                return "200"
            time.sleep(0.05)
            if answer.status_code != 503 or answer.headers["content-type"] != "application/problem+json":
                return f"{answer.status_code}: {answer.text[:300]}"
            return f"503 {answer.json()['type']}"

        def wait_for(path: str, status: int) -> None:
            wait_until(lambda: http.get(path).status_code == status)

        with repeating(send, clients=8) as answers:
            for _ in range(10):
                time.sleep(random.uniform(0.5, 3))
                server.stop(signal.SIGKILL)
                wait_for("/healthz/ready", 503)
                server = start()
                wait_for("/digits/7.png", 200)
                wait_for("/healthz/ready", 200)
        counts = Counter(answers)
        print(counts)
        assert counts["503 /problems/model-server-unreachable"]
        assert counts["200"]
        assert {answer for answer in counts if not answer.startswith(("200", "503 /problems/"))} == set()
        wait_until(lambda: http.in_flight() == 0)


@pytest.mark.parametrize("sizes", [(1,), (1, 16, 256)], ids=["single digits", "1, 16 and 256 digits"])
def test_every_request_is_answered_under_overload(model_server: ModelServerProcess, sizes: tuple[int, ...]) -> None:
    """With its digits, or with 503. There are 256 clients, and room for 64 requests for one digit."""

    def statuses(seed: int) -> Counter[int]:
        """Sends requests without a pause on a connection. Returns how many had each status."""
        chance = random.Random(seed)
        found = Counter[int]()
        end = time.monotonic() + 20
        with http.connect() as connection:
            while time.monotonic() < end:
                (size,) = chance.choices(sizes, [1 / size for size in sizes])  # as many images of each size
                first = chance.randrange(2**40)
                seeds = list(range(first, first + size))
                connection.sendall(json_request("/generate", f'{{"seeds": {seeds}}}'.encode()))
                with HTTPResponse(connection) as answer:
                    answer.begin()
                    answer.read()
                found[answer.status] += 1
        return found

    with gateways.serving(model_server.target) as http, ThreadPoolExecutor(256) as pool:
        memory = []
        for _ in range(2):  # the first time warms the service up
            found = sum(pool.map(statuses, range(256)), Counter[int]())
            print(found)
            assert found.keys() == {200, 503}
            memory.append(http.process.resident_bytes() + model_server.resident_bytes())
    assert memory[1] - memory[0] < 100e6


@pytest.mark.parametrize("name", SLOW)
def test_slow_clients_cost_little_memory_and_disturb_no_other_client(
    model_server: ModelServerProcess, name: str
) -> None:
    """A thousand of them. Another client sends one request after the other."""
    with gateways.serving(model_server.target) as http:

        def digit() -> int:
            """Requests a digit. Returns the status, 0 without an answer."""
            time.sleep(0.01)
            with contextlib.suppress(httpx.HTTPError):
                return http.get("/digits/7.png").status_code
            return 0

        with repeating(digit) as answers:
            time.sleep(2)
            memory = http.process.resident_bytes()
            with hanging(http, SLOW[name], 1000):
                time.sleep(8)  # a burst of a thousand connections is overload: some requests may get 503
                connected = len(answers)
                time.sleep(10)
                grown = http.process.resident_bytes() - memory
                hung = len(answers)
        assert set(answers[connected:hung]) == {200}
        assert grown < 300e6, "twice DIGITGAN_MAX_WAITING_BYTES, and what Python keeps to use again"


KEY: Final = new_key()
PATHS: Final = (*["/generate"] * 2, "/interpolate", "/dataset", "/score", "/v2/models/generator/infer", "/nowhere")
BODIES: Final = (
    b'{"seeds": [7]}',
    b'{"count": 64}',
    b'{"count": 4096}',
    b'{"count": 1024, "scale": 4}',
    b'{"count": 0}',
    b"not JSON",
    b'{"seeds": [' + b"7, " * 40_000 + b"7]}",
)
FIELDS: Final = (
    b"Expect: 100-continue",
    b"Connection: close",
    b"Connection: Upgrade\r\nUpgrade: h2c",
    b"Accept: application/zip",
    b"Accept: application/x-npy",
    b"Content-Type: application/pdf",
    b"Host: y",
    b"Request-Timeout: 0.05",
)


def hostile_request(chance: random.Random) -> bytes:
    """Returns a request that may be wrong in several ways, most of them with a valid key."""
    head, _, body = json_request(chance.choice(PATHS), chance.choice(BODIES)).partition(b"\r\n\r\n")
    fields = chance.sample(FIELDS, chance.choice((0, 0, 1, 2)))
    if chance.random() < 0.7:
        fields.append(b"Authorization: Bearer " + KEY.encode())
    content = b"\r\n".join((head, *fields)) + b"\r\n\r\n" + body
    if chance.random() < 0.1:
        at = chance.randrange(len(content))
        content = content[:at] + bytes([chance.randrange(256)]) + content[at + 1 :]
    return content


def hostile_connection(http: GatewayClient, chance: random.Random) -> None:
    """Connects, sends requests in pieces, reads some of the answers, and leaves at any time."""
    with contextlib.suppress(OSError), socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, chance.choice((4096, 2**18)))
        connection.settimeout(chance.choice((0.01, 0.3, 2.0)))
        connection.connect(("127.0.0.1", http.base_url.port or 0))
        for _ in range(chance.randrange(1, 6)):
            content = hostile_request(chance) * chance.choice((1, 1, 1, 3, 120))
            cut = chance.choice((len(content), chance.randrange(len(content))))
            connection.sendall(content[:cut])
            if chance.random() < 0.5:
                time.sleep(chance.random() * chance.choice((0.05, 1.0)))
            if chance.random() < 0.8:
                connection.sendall(content[cut:])
            if chance.random() < 0.6:
                connection.recv(chance.choice((10, 2**16)))


@pytest.mark.parametrize("access_log", [False, True], ids=["without a log", "with an access log"])
def test_hostile_clients_leave_the_service_open(model_server: ModelServerProcess, access_log: bool) -> None:
    """After a minute of them no gauge is stuck."""
    limits = {"max_images_in_flight": 128, "max_connections": 200, "max_waiting_bytes": 32 * 2**20}
    times = {"header_timeout_s": 3, "body_timeout_s": 5, "send_timeout_s": 3}
    keys = {"api_keys": f"me:{hash_of(KEY)}", "key_images_per_minute": 0}
    with gateways.serving(model_server.target, access_log=access_log, **limits, **times, **keys) as http:
        numbers = itertools.count()
        with repeating(lambda: hostile_connection(http, random.Random(next(numbers))), clients=24):
            time.sleep(60)
        wait_until(lambda: http.in_flight() == 0)
        for body in ({"seeds": [7]}, {"count": 1000}):
            answer = http.post("/generate", json=body, headers={"Authorization": f"Bearer {KEY}"})
            assert answer.status_code == 200, answer.text
        assert "Traceback" not in http.process.log


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
    """Two gateways and two model servers on this machine (Linux), which are ready, replaced as Kubernetes does it.

    The settings of k8s/base are read from there: environment, flags, readiness probes, pauses. The model servers are
    behind a name that resolves to those that are ready, as a headless Service's does. Clients send at a steady rate to
    the gateways that the probes call ready, and learn of a change two seconds late. A new pod comes first, then the old
    one leaves: a gateway by SIGTERM; a model server, once it has slept as its preStop hook says, by SIGKILL, since
    TensorFlow Serving drains nothing. A model server that is killed without any notice keeps its address in the name
    until a probe has missed it.
    """

    def __init__(self, stack: ExitStack, models_config: Path) -> None:
        self._stack = stack
        self._name = stack.enter_context(serving(HeadlessService()))
        self._port = free_port()
        self._hosts = (f"127.0.0.{number}" for number in itertools.count(11))
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


@pytest.mark.parametrize("work", [Cluster.replace_everything, Cluster.kill_each_server])
def test_no_request_fails_meanwhile(cluster: Cluster, work: Callable[[Cluster], None]) -> None:
    numbers = itertools.count()
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
