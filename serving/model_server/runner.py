"""A loaded version, ready to answer: the model itself, with or without batching in front."""

from collections.abc import Mapping

from serving import apis
from serving.model_server.batching import Batcher, BatchingOptions, Call
from serving.model_server.servable import Servable
from serving.model_server.signature import Arrays, Signature


class Runner:
    """Runs ``servable``, in batches where ``batching`` says how."""

    def __init__(self, servable: Servable, batching: BatchingOptions | None) -> None:
        self._servable = servable
        self._batcher = Batcher(servable.run, batching) if batching else None

    @property
    def signatures(self) -> Mapping[str, Signature]:
        """The signatures by name."""
        return self._servable.signatures

    @property
    def signature_defs(self) -> apis.SignatureDefMap:
        """The signatures as the API describes them."""
        return self._servable.signature_defs

    def run(self, signature_name: str, inputs: Arrays, call: Call) -> Arrays:
        """Returns all outputs of a signature. Raises ServingError as the batcher and the servable do."""
        if self._batcher and inputs:
            return self._batcher.run(signature_name, inputs, call)
        return self._servable.run(signature_name, inputs)

    def close(self) -> None:
        """Frees the model's memory; no run may come after it."""
        self._servable.close()
