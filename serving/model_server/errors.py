"""The one exception that becomes a gRPC status."""

from typing import Final

import grpc

MAX_MESSAGE_CHARACTERS: Final = 1024
"""Longer messages are cut, as TensorFlow Serving does: gRPC sends them in a header, where space is short."""


class ServingError(Exception):
    """A request, or the loading of a version, that ends with a status other than OK."""

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(message[:MAX_MESSAGE_CHARACTERS])
        self.code = code

    @property
    def number(self) -> int:
        """The code as a number, the same in gRPC and in TensorFlow."""
        number: int = self.code.value[0]
        return number

    def __str__(self) -> str:
        return f"{self.code.name}: {self.message}"

    @property
    def message(self) -> str:
        """The message without the code."""
        return str(self.args[0])


def invalid_argument(message: str) -> ServingError:
    """Returns the error for a request that the model or the server cannot take."""
    return ServingError(grpc.StatusCode.INVALID_ARGUMENT, message)
