"""What an export saves: a graph for each signature, and what they hold."""

from typing import Any

import tensorflow as tf


class InferenceModule(tf.Module):  # type: ignore[misc]  # TensorFlow ships no types
    """A model as it is served.

    Attributes:
        graphs: signature name -> a tf.function with one input, whose outputs are a dictionary; by the contract.
        parts: what the functions refer to beside constants.
    """

    def __init__(self, graphs: dict[str, Any], parts: list[Any] | None = None) -> None:
        super().__init__()
        self.graphs = graphs
        self.parts = parts or []
