"""One loaded version of a model, whatever runs it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from serving import apis
from serving.model_server.signature import Arrays, Signature


class Servable(Protocol):
    """A version in memory. Runs are safe from several threads; ``close`` comes after the last of them."""

    @property
    def signature_defs(self) -> apis.SignatureDefMap:
        """The signatures as the API describes them."""

    @property
    def signatures(self) -> Mapping[str, Signature]:
        """The signatures by name."""

    def run(self, signature_name: str, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """Runs a signature on inputs of its names and dtypes, and returns all its outputs.

        Raises ServingError, like INVALID_ARGUMENT for a shape that an operation can't take.
        """

    def close(self) -> None:
        """Frees the model's memory."""


class Load(Protocol):
    """How an engine loads a version."""

    def __call__(self, path: Path, intra_op_threads: int = 0, inter_op_threads: int = 0) -> Servable:
        """Loads the SavedModel in the directory ``path``; thread counts of 0 leave the choice to the engine.

        Raises ServingError: NOT_FOUND without a graph file or one for serving, DATA_LOSS for a graph that can't be
        parsed, OUT_OF_RANGE for a short variables file, and whatever else the engine has to say.
        """
