"""The check of ``python -m benchmarks.soak`` finds a leak, and none in the gateway: in short, with large bodies."""

import httpx
import pytest

from benchmarks import soak
from tests.gateway import processes
from tests.gateway.misbehaving import MisbehavingServer

PLAIN = ("-m", "api.main")
LEAKING = ("-c", soak.LEAKING_GATEWAY)
BODY = b"[" * (8 * 2**20 - 1)


@pytest.mark.parametrize(("program", "found"), [(PLAIN, []), (LEAKING, ["gateway"])], ids=["plain", "leaking"])
def test_who_keeps_what_it_is_sent_is_found(
    faulty_server: MisbehavingServer, program: tuple[str, ...], found: list[str]
) -> None:
    with processes.gateway(faulty_server.target, program) as gateway:
        points = []
        for _ in range(8):
            answer = httpx.post(
                f"{processes.url_of(gateway)}/generate", content=BODY, headers={"Content-Type": "application/json"}
            )
            assert answer.status_code in (400, 422)
            points.append(gateway.resident_bytes())
    curves = soak.Curve("gateway", points), soak.Curve("model server", [0] * len(points))
    assert soak.growing(curves, 2 * soak.EACH) == found
