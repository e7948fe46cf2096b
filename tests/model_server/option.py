"""The option that names the model server under test; a plugin, since only those are asked for options in time."""

import pytest

EMBEDDED = "embedded"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--model-server",
        default=EMBEDDED,
        metavar="PROGRAM",
        help="what tests/model_server runs on: 'embedded' (default) or the path of a tensorflow_model_server",
    )
