"""TLS between the gateway and a real gRPC server that has it, with certificates made for the test."""

from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme

from api.settings import load_settings
from serving.contract import MODELS
from serving.errors import UserError
from tests.support.gateways import assert_problem, serving
from tests.support.misbehaving import MisbehavingServer

AUTHORITY = trustme.CA()


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
