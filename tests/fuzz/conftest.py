"""The real servers of the gateway's tests."""

from tests.api.conftest import model_server

__all__ = ["model_server"]
