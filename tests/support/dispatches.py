"""What Python sends to TensorFlow, counted."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def noted_dispatches() -> Iterator[list[str]]:
    """Notes in the list that it yields what Python sends to TensorFlow in the block: operations and whole functions."""
    from tensorflow.python.framework import op_callbacks

    found: list[str] = []

    def note(kind: str, _inputs: Any, _attributes: Any, _outputs: Any, _name: Any = None, graph: Any = None) -> None:
        if graph is None:  # Otherwise a function is traced.
            found.append(kind)

    op_callbacks.add_op_callback(note)
    try:
        yield found
    finally:
        op_callbacks.remove_op_callback(note)
