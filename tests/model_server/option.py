"""The option that names the model server under test; a plugin, since only those are asked for options in time."""

import pytest

EMBEDDED = "embedded"
"""On each of its engines, in turn."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--model-server",
        default=EMBEDDED,
        metavar="PROGRAM",
        help="what tests/model_server runs on: 'embedded' (default: each engine) or a tensorflow_model_server's path",
    )
