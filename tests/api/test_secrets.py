"""Unknown failures, wherever they are: the answer is a problem document without a word of the exception."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.support import gateways
from tests.support.gateways import GatewayClient, noise_input
from tests.support.problems import assert_problem
from tests.support.waiting import wait_until

SECRET = "secret-/srv/models-10.0.0.7"

SABOTAGED = f"""
import sys
import api.main, api.oip.routes, api.routes.status
from api.formats import images, streams
from api.http.current_request import current

class SecretError(Exception):
    pass

def sabotage(module, name, part):
    whole = getattr(module, name)

    def failing(*args, **kwargs):
        under_way = current.get(None)
        if under_way and under_way.request_id == part:
            raise SecretError("{SECRET}")
        return whole(*args, **kwargs)

    setattr(module, name, failing)

sabotage(images, "png", "digits")
sabotage(api.routes.status, "generate_latest", "metrics")
sabotage(api.oip.routes, "write_answer", "inference")
sabotage(streams.ZipStream, "add", "zip")
sys.exit(api.main.main())
"""
"""The gateway, with parts that fail for the requests whose id is their name."""


@pytest.fixture(scope="module")
def http(model_server: str) -> Iterator[GatewayClient]:
    with gateways.serving(model_server, ("-c", SABOTAGED), log_format="json") as client:
        yield client


@pytest.mark.parametrize(
    ("part", "method", "path", "body"),
    [
        ("digits", "POST", "/generate", {"seeds": [7]}),
        ("metrics", "GET", "/metrics", None),
        ("inference", "POST", "/v2/models/generator/infer", noise_input()),
    ],
)
def test_an_exception_keeps_its_words_to_one_line_of_the_log(
    http: GatewayClient, part: str, method: str, path: str, body: Any
) -> None:
    assert http.request(method, path, json=body).status_code == 200
    before = http.process.log.count(SECRET)
    answer = http.request(method, path, json=body, headers={"X-Request-ID": part})
    assert_problem(answer, "internal-error")
    assert answer.headers["connection"] == "close"
    for text in (answer.text, str(answer.headers)):
        assert SECRET not in text
        assert "SecretError" not in text
    wait_until(lambda: http.process.log.count(SECRET) > before)
    *_, line = (line for line in http.process.log.splitlines() if SECRET in line)
    assert "SecretError: " in json.loads(line)["exception"]


def test_a_stream_that_fails_breaks_off(http: GatewayClient) -> None:
    headers = {"Accept": "application/zip", "X-Request-ID": "zip"}
    before = http.process.log.count(SECRET)
    with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):  # after the header, or before it is sent
        http.post("/generate", json={"count": 10}, headers=headers)
    wait_until(lambda: http.process.log.count(SECRET) > before)
