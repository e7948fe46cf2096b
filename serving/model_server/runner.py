"""A loaded version, ready to answer: the model itself, with or without batching in front."""

from collections.abc import Mapping

from serving import apis
from serving.model_server.batching import Batcher, BatchingOptions, Call
from serving.model_server.saved_model import SavedModel
from serving.model_server.signature import Arrays, Signature


class Runner:
    """Runs ``model``, in batches where ``batching`` says how."""

    def __init__(self, model: SavedModel, batching: BatchingOptions | None) -> None:
        self._model = model
        self._batcher = Batcher(model.run, batching) if batching else None

    @property
    def signatures(self) -> Mapping[str, Signature]:
        """The signatures by name."""
        return self._model.signatures

    @property
    def signature_defs(self) -> apis.SignatureDefMap:
        """The signatures as the API describes them."""
        return self._model.signature_defs

    def run(self, signature_name: str, inputs: Arrays, call: Call) -> Arrays:
        """Returns all outputs of a signature. Raises ServingError as the batcher and the model do."""
        if self._batcher and inputs:
            return self._batcher.run(signature_name, inputs, call)
        return self._model.run(signature_name, inputs)

    def close(self) -> None:
        """Frees the model's memory; no run may come after it."""
        self._model.close()
