"""The option that names the model server under test; a plugin, since only plugins may add options."""

import pytest

EMBEDDED = "embedded"


@pytest.fixture(scope="session")
def program(pytestconfig: pytest.Config) -> str:
    """The server under test: EMBEDDED, or a program's path."""
    return str(pytestconfig.getoption("--model-server"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--model-server",
        default=EMBEDDED,
        metavar="PROGRAM",
        help="what tests/model_server runs on: 'embedded' (default) or a tensorflow_model_server's path",
    )
