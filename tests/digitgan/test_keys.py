"""The client before a gateway that wants API keys: the key goes along, and what its quota refuses is waited for."""

from collections.abc import Iterator

import pytest

from api.middleware.keys import hash_of, new_key
from digitgan.client import Client
from tests.support import gateways
from tests.support.commands import digitgan

ALICE, CAROL = new_key(), new_key()


@pytest.fixture(scope="module")
def guarded_url(model_server: str) -> Iterator[str]:
    """A gateway where alice has an image a second, and carol the default."""
    keys = f"alice:{hash_of(ALICE)}:60,carol:{hash_of(CAROL)}"
    with gateways.gateway(model_server, api_keys=keys) as process:
        yield process.url


def test_the_key_is_given_or_in_the_environment(guarded_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with Client(guarded_url, api_key=CAROL) as client:
        assert len(client.generate(3).pixels) == 3
    monkeypatch.setenv("DIGITGAN_API_KEY", CAROL)
    with Client(guarded_url) as client:
        assert len(client.generate(3).pixels) == 3


def test_what_is_used_up_is_waited_for(guarded_url: str) -> None:
    with Client(guarded_url, api_key=ALICE, retry_s=30) as client:
        client.generate(60)
        assert len(client.generate(3).pixels) == 3


def test_what_can_be_no_key_is_told(guarded_url: str) -> None:
    with pytest.raises(ValueError, match="API key"):
        Client(guarded_url, api_key="schlüssel")


def test_the_commands_use_it_too(guarded_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    command = ("generate", "--url", guarded_url, "--seed", "7")
    refused = digitgan(*command, check=False)
    assert (refused.returncode, "API key" in refused.stderr) == (2, True)
    monkeypatch.setenv("DIGITGAN_API_KEY", CAROL)
    digitgan(*command)


def test_a_service_for_a_command_alone_wants_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the environment says for a gateway that is started from it."""
    monkeypatch.setenv("DIGITGAN_API_KEYS", f"alice:{hash_of(ALICE)}")
    digitgan("generate", "--local", "--seed", "7")
