"""The gateway's settings: read once, checked, and reported by name."""

import os
from pathlib import Path

import pytest

from api.settings import load_settings
from serving.errors import UserError


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("DIGITGAN_"):
            monkeypatch.delenv(name)


def test_settings_come_from_arguments_then_the_environment_then_the_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIGITGAN_PORT", "1234")
    monkeypatch.setenv("DIGITGAN_MODELS_DIR", "/models")
    monkeypatch.setenv("DIGITGAN_HOST", "")  # counts as absent
    settings = load_settings()
    assert (settings.port, settings.models_dir, settings.host) == (1234, Path("/models"), "127.0.0.1")
    assert load_settings(port=0).port == 0


def test_all_wrong_variables_are_named_with_their_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIGITGAN_PORT", "http")
    monkeypatch.setenv("DIGITGAN_LOG_LEVEL", "loud")
    with pytest.raises(UserError, match=r"DIGITGAN_PORT=http: (.|\n)*DIGITGAN_LOG_LEVEL=loud: "):
        load_settings()


def test_origins() -> None:
    assert load_settings(cors_origins="https://a.b:1, http://c").cors_origins == ("https://a.b:1", "http://c")
    assert load_settings(cors_origins="*").cors_origins == ("*",)
    for wrong in ("a.b", "ftp://a.b", "https://a.b/", "https://"):
        with pytest.raises(UserError, match=r"DIGITGAN_CORS_ORIGINS=.*should be origins like https://example.org"):
            load_settings(cors_origins=wrong)


def test_the_model_servers_address() -> None:
    several = "ipv4:10.0.0.1:8500,10.0.0.2:8500"
    for target in ("localhost:8500", "[::1]:8500", "dns:///models:8500", "unix:/run/models.sock", several):
        assert load_settings(model_server=target).model_server == target
    for wrong in ("localhost", ":8500", "localhost:", "localhost:0", "localhost:65536", "a:b"):
        with pytest.raises(UserError, match=r"DIGITGAN_MODEL_SERVER=.*should be host:port"):
            load_settings(model_server=wrong)
