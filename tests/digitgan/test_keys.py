"""The client before a gateway that wants API keys: the key goes along."""

from collections.abc import Iterator

import pytest

from api.middleware.keys import hash_of, new_key
from digitgan.client import Client
from tests.support import gateways
from tests.support.commands import digitgan

KEY = new_key()


@pytest.fixture(scope="module")
def guarded_url(model_server: str) -> Iterator[str]:
    with gateways.gateway(model_server, api_keys=f"carol:{hash_of(KEY)}") as process:
        yield process.url


def test_the_key_is_given_or_in_the_environment(guarded_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with Client(guarded_url, api_key=KEY) as client:
        assert len(client.generate(3).pixels) == 3
    monkeypatch.setenv("DIGITGAN_API_KEY", KEY)
    with Client(guarded_url) as client:
        assert len(client.generate(3).pixels) == 3


def test_what_can_be_no_key_is_told(guarded_url: str) -> None:
    with pytest.raises(ValueError, match="API key"):
        Client(guarded_url, api_key="schlüssel")


def test_the_commands_use_it_too(guarded_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    command = ("generate", "--url", guarded_url, "--seed", "7")
    refused = digitgan(*command, check=False)
    assert (refused.returncode, "API key" in refused.stderr) == (2, True)
    monkeypatch.setenv("DIGITGAN_API_KEY", KEY)
    digitgan(*command)


def test_a_service_for_a_command_alone_wants_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the environment says for a gateway that is started from it."""
    monkeypatch.setenv("DIGITGAN_API_KEYS", f"carol:{hash_of(KEY)}")
    digitgan("generate", "--local", "--seed", "7")
