"""Access: API keys, their limits, and TLS to a real gRPC server that has it, with certificates made for the test."""

import time
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
import trustme

from api.middleware.keys import hash_of, new_key
from api.settings import load_settings
from serving.contract import MODELS
from serving.errors import UserError
from tests.conftest import faulty_gateway_fixture
from tests.support.gateways import GatewayClient, assert_problem, noise_input, serving
from tests.support.misbehaving import MisbehavingServer

AUTHORITY = trustme.CA()

TEN = [new_key() for _ in range(5)]
"""Keys for 10 images a minute."""
BOB, CAROL = new_key(), new_key()
"""Keys for 600 images a minute."""

KEYS = [f"{place}:{hash_of(key)}:10" for place, key in enumerate(TEN)]
KEYS += [f"b:{hash_of(BOB)}", f"c:{hash_of(CAROL)}"]
guarded = faulty_gateway_fixture(api_keys=",".join(KEYS), key_images_per_minute=600, cors_origins="https://example.org")


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@pytest.mark.parametrize(
    "authorization",
    [None, "", "Bearer", f"Bearer {new_key()}", f"Bearer {BOB[:-1]}", BOB, f"Digest {BOB}", "Basic ?", "Basic Ym9i"],
    ids=["none", "empty", "no key", "unknown", "cut", "no scheme", "other scheme", "no base64", "no password"],
)
def test_without_a_key_there_is_no_access(guarded: GatewayClient, authorization: str | None) -> None:
    headers = {} if authorization is None else {"Authorization": authorization}
    for method, path in (("GET", "/digits/7.png"), ("POST", "/generate"), ("GET", "/v2"), ("GET", "/nothing")):
        refused = guarded.request(method, path, headers=headers)
        assert_problem(refused, "unauthenticated")
        assert refused.headers["www-authenticate"].startswith('Bearer realm="digitgan"')
        assert "RateLimit" not in refused.headers


def test_probes_scrapers_and_problems_need_no_key(guarded: GatewayClient) -> None:
    for path in ("/healthz/live", "/healthz/ready", "/v2/health/live", "/v2/health/ready", "/metrics"):
        assert guarded.get(path).status_code == 200
    assert guarded.get("/problems/timeout").status_code == 200


def test_a_browser_may_send_the_key_as_a_password(guarded: GatewayClient) -> None:
    assert guarded.get("/digits/7.png", auth=("anyone", BOB)).status_code == 200


def test_a_shared_cache_keeps_nothing_that_needs_a_key(guarded: GatewayClient) -> None:
    answer = guarded.get("/digits/7.png?version=1", headers=bearer(BOB))
    assert answer.headers["cache-control"] == "private, max-age=31536000, immutable"
    assert "Authorization" in answer.headers["vary"]


def test_images_are_counted_and_run_out(guarded: GatewayClient) -> None:
    first = guarded.post("/generate", json={"count": 8}, headers=bearer(TEN[4]))
    assert first.status_code == 200
    assert first.headers["ratelimit-policy"] == '"images";q=10;w=60;qu="images"'
    assert first.headers["ratelimit"].startswith('"images";r=2;t=')
    refused = guarded.post("/generate", json={"count": 10}, headers=bearer(TEN[4]))
    assert_problem(refused, "rate-limited")
    assert 1 <= int(refused.headers["retry-after"]) <= 54
    assert guarded.get("/digits/7.png", headers=bearer(BOB)).status_code == 200, "each key has its own"
    never = guarded.post("/generate", json={"count": 601}, headers=bearer(BOB))
    assert_problem(never, "invalid-request", "/count")


def left(answer: httpx.Response) -> int:
    """Returns how many images the key has left."""
    return int(answer.headers["ratelimit"].partition("r=")[2].partition(";")[0])


def test_after_the_time_to_retry_there_are_images_again(guarded: GatewayClient) -> None:
    """A key with less than one image is refused before the body says how many it needs: then the next refusal does."""
    post = partial(guarded.post, "/generate", json={"count": 40}, headers=bearer(CAROL))
    while (answer := post()).status_code == 200:
        pass
    for _ in range(2 if left(answer) < 2 else 1):
        if answer.status_code == 429:
            time.sleep(int(answer.headers["retry-after"]))
            answer = post()
    assert answer.status_code == 200


@pytest.mark.parametrize(
    ("number", "path", "body", "images", "more", "place"),
    [
        (0, "/interpolate", {"seeds": [1, 2], "steps": 8}, 9, {"steps": 700}, "/steps"),
        (1, "/dataset", {"count": 10, "confidence_floor": 0, "balance": "natural"}, 10, {"count": 601}, "/count"),
        (2, "/v2/models/generator/infer", noise_input(9), 9, noise_input(601), "/inputs"),
        (3, "/v2/models/generator/versions/1/infer", noise_input(9), 9, noise_input(601), "/inputs"),
    ],
)
def test_every_route_counts_its_images_and_names_the_field_with_too_many(
    guarded: GatewayClient, number: int, path: str, body: dict[str, Any], images: int, more: dict[str, Any], place: str
) -> None:
    begun = time.monotonic()
    answer = guarded.post(path, json=body, headers=bearer(TEN[number]))
    assert answer.status_code == 200, answer.text
    assert 0 <= left(answer) - (10 - images) <= (time.monotonic() - begun) / 6  # seconds for each that is back already
    assert_problem(guarded.post(path, json=body, headers=bearer(TEN[number])), "rate-limited")
    refused = guarded.post(path, json=body | more, headers=bearer(BOB))
    assert "600 a minute" in assert_problem(refused, "invalid-request", place)["detail"]


def test_a_preflight_request_needs_no_key(guarded: GatewayClient) -> None:
    """The browser sends it by itself, and never with credentials."""
    asked = {"Origin": "https://example.org", "Access-Control-Request-Method": "POST"}
    asked |= {"Access-Control-Request-Headers": "authorization,content-type"}
    allowed = guarded.options("/generate", headers=asked)
    assert allowed.status_code == 200
    assert allowed.headers["access-control-allow-origin"] == "https://example.org"
    assert allowed.headers["access-control-allow-headers"] == "authorization,content-type"
    answer = guarded.get("/healthz/live", headers={"Origin": "https://example.org"})
    assert answer.headers["access-control-expose-headers"] == "*"
    other = guarded.options("/generate", headers=asked | {"Origin": "https://evil.example"})
    assert other.status_code == 400
    assert "access-control-allow-origin" not in other.headers


def test_the_openapi_document_has_the_key(guarded: GatewayClient) -> None:
    document = guarded.get("/openapi.json", headers=bearer(BOB)).json()
    assert document["components"]["securitySchemes"]["key"]["scheme"] == "bearer"
    assert {"401", "429"} <= document["paths"]["/generate"]["post"]["responses"].keys()
    assert "security" not in document["paths"]["/healthz/live"]["get"]


@pytest.mark.parametrize(
    "entry", ["alice", f"alice:{BOB}", f"a b:{'0' * 64}", f"a:{'0' * 64}:0", f"a:{'0' * 63}"], ids=range(5)
)
def test_a_wrong_entry_is_refused_and_not_printed(entry: str) -> None:
    with pytest.raises(UserError, match="DIGITGAN_API_KEYS=…: should be name:sha256") as error:
        load_settings(api_keys=entry)
    assert BOB not in str(error.value)
    assert "alice" not in repr(load_settings(api_keys=f"alice:{hash_of(BOB)}"))


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """The gateway's settings: the authority's certificate, and one of its own from there."""
    own = AUTHORITY.issue_cert("gateway.example")
    AUTHORITY.cert_pem.write_to_path(tmp_path / "ca.pem")
    own.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    own.private_key_pem.write_to_path(tmp_path / "key.pem")
    return {f"model_server_tls_{name}": tmp_path / f"{name}.pem" for name in ("ca", "cert", "key")}


def tls_server(authority: trustme.CA = AUTHORITY, host: str = "127.0.0.1", mutual: bool = False) -> MisbehavingServer:
    """A model server behind TLS, on a free port."""
    own = authority.issue_cert(host)
    pair = (own.private_key_pem.bytes(), b"".join(pem.bytes() for pem in own.cert_chain_pems))
    credentials = grpc.ssl_server_credentials(
        [pair], authority.cert_pem.bytes() if mutual else None, require_client_auth=mutual
    )
    return MisbehavingServer("127.0.0.1:0", credentials)


def test_mutual_tls_with_traces(files: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")  # no receiver is there
    with (
        tls_server(mutual=True) as server,
        serving(server.target, **files) as http,
        serving(server.target, **files, tracing=True) as traced,
    ):
        assert http.get("/healthz/ready").status_code == 200
        for one in (http, traced):
            assert one.get("/digits/7.png").headers["content-type"] == "image/png"


@pytest.mark.parametrize(
    "other",
    [{"authority": trustme.CA()}, {"host": "other.example"}, {"mutual": True}],
    ids=lambda other: next(iter(other)),
)
def test_without_trust_on_both_sides_there_are_no_calls(files: dict[str, Path], other: dict[str, Any]) -> None:
    ca = files["model_server_tls_ca"]
    with tls_server(**other) as server, serving(server.target, model_server_tls_ca=ca) as http:
        document = assert_problem(http.get("/healthz/ready"), "not-ready", *MODELS)
        found = document["errors"][0]["detail"]
        assert "mutual" in other or ("TLS handshake" in found and "DIGITGAN_MODEL_SERVER_TLS" in found)
        assert_problem(http.get("/digits/7.png"), "model-server-unreachable")


def test_wrong_files_are_named_before_anything_listens(files: dict[str, Path], tmp_path: Path) -> None:
    ca, cert, key = (files[f"model_server_tls_{name}"] for name in ("ca", "cert", "key"))
    foreign = tmp_path / "foreign.pem"
    trustme.CA().issue_cert("x.example").private_key_pem.write_to_path(foreign)
    for settings, words in (
        ({"ca": tmp_path / "nowhere.pem"}, "nowhere.pem"),
        ({"ca": key}, "key.pem: no certificates"),
        ({"ca": ca, "cert": cert}, "DIGITGAN_MODEL_SERVER_TLS_KEY"),
        ({"cert": cert, "key": key}, "DIGITGAN_MODEL_SERVER_TLS_CA"),
        ({"ca": ca, "cert": cert, "key": foreign}, "foreign.pem"),
    ):
        with pytest.raises(UserError, match=words):
            load_settings(**{f"model_server_tls_{name}": path for name, path in settings.items()})
