"""Load by wrk: the scenarios, and what wrk measures."""

import json
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from typing import Final

from benchmarks.peers.services import Service

POOL: Final = 64
"""Different requests that are sent in turn, so that nothing can be answered from a cache."""


@dataclass(frozen=True)
class Scenario:
    """So many seeds a request, from so many clients, each of which asks again as soon as it has its answer."""

    name: str
    title: str
    seeds: int
    clients: int


SCENARIOS: Final = (
    Scenario("1x1", "1 seed, 1 client", 1, 1),
    Scenario("1x16", "1 seed, 16 clients", 1, 16),
    Scenario("1x64", "1 seed, 64 clients", 1, 64),
    Scenario("16x1", "16 seeds, 1 client", 16, 1),
    Scenario("16x8", "16 seeds, 8 clients", 16, 8),
    Scenario("256x1", "256 seeds, 1 client", 256, 1),
)


@dataclass(frozen=True)
class Load:
    """What wrk measured. ``failures``: answers other than 200, and connections that broke or timed out."""

    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float
    failures: int


_SCRIPT: Final = """
local bodies = {BODIES}
local headers = {["Content-Type"] = "application/json"}
local requests, next = {}, 0
init = function(arguments)
  for i, body in ipairs(bodies) do requests[i] = wrk.format("POST", nil, headers, body) end
end
request = function()
  next = next % #requests + 1
  return requests[next]
end
done = function(summary, latency)
  local failed = summary.errors
  io.write(string.format('\\nRESULT {"requests": %d, "seconds": %f, "p50_ms": %f, "p99_ms": %f, "failures": %d}\\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    failed.connect + failed.read + failed.write + failed.status + failed.timeout))
end
"""


def require_wrk() -> None:
    """Raises SystemExit where wrk isn't installed."""
    if shutil.which("wrk") is None:
        raise SystemExit("this needs wrk, which makes the load: install your system's package of that name")


def measure(service: Service, port: int, scenario: Scenario, seconds: int) -> Load:
    """Puts a service under a scenario's load for so many seconds, whole ones for wrk, and returns what came of it."""
    count = scenario.seeds
    bodies = [service.body(range(index * count, (index + 1) * count)).decode() for index in range(POOL)]
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(_SCRIPT.replace("{BODIES}", "{" + ",".join(f"[==[{body}]==]" for body in bodies) + "}"))
        script.flush()
        command = ["wrk", "--threads=1", f"--connections={scenario.clients}", f"--duration={seconds}s"]
        command += ["--timeout=30s", f"--script={script.name}", service.url(port)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    results = [line.removeprefix("RESULT ") for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if not results:
        raise RuntimeError(f"wrk: {done.stderr or done.stdout}")
    return Load(**json.loads(results[0]))
