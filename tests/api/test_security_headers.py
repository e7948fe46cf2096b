"""Every answer carries the fields that tell browsers what it may do; pages have nothing inline and nothing foreign."""

import re

import grpc
import httpx
import pytest

from api.middleware.security_headers import NOTHING
from serving.apis import PredictRequest
from tests.api.misbehaving import MisbehavingServer, honest
from tests.api.problem import assert_problem


def assert_guarded(answer: httpx.Response) -> None:
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert "camera=()" in answer.headers["permissions-policy"]
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_pages(faulty_http: httpx.Client, path: str) -> None:
    page = faulty_http.get(path, headers={"Origin": "https://evil.example"})
    assert page.status_code == 200
    assert_guarded(page)
    assert "script-src 'self'" in page.headers["content-security-policy"]
    assert not re.search(r"<script(?![^>]*src=)|\son\w+=|javascript:|style=", page.text)


@pytest.mark.parametrize(
    "path",
    ["/healthz/live", "/digits/7.png", "/openapi.json", "/metrics", "/docs/files/start.js", "/problems/timeout"],
)
def test_other_answers(faulty_http: httpx.Client, path: str) -> None:
    answer = faulty_http.get(path, headers={"Origin": "https://evil.example"})
    assert answer.status_code == 200
    assert_guarded(answer)
    assert answer.headers["content-security-policy"] == NOTHING


@pytest.mark.parametrize(("method", "path"), [("GET", "/nothing"), ("PUT", "/generate"), ("GET", "/digits/x.png")])
def test_refusals(faulty_http: httpx.Client, method: str, path: str) -> None:
    answer = faulty_http.request(method, path)
    assert answer.status_code >= 400
    assert_guarded(answer)


def test_failures(faulty_http: httpx.Client, faulty_server: MisbehavingServer) -> None:
    def garbage(request: PredictRequest, context: grpc.ServicerContext) -> bytes:
        return b"\xff"

    faulty_server.behaviour = garbage
    try:
        assert_guarded(faulty_http.get("/digits/7.png"))
    finally:
        faulty_server.behaviour = honest


def test_without_configured_origins_a_preflight_request_is_refused(faulty_http: httpx.Client) -> None:
    asked = {"Origin": "https://example.org", "Access-Control-Request-Method": "POST"}
    assert_problem(faulty_http.options("/generate", headers=asked), "method-not-allowed")
