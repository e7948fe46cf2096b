"""What runs a model: each engine is a module with a function ``load``, and is imported when it is chosen."""

from enum import StrEnum
from typing import TYPE_CHECKING, Final

from serving.quiet import quiet_tensorflow_import, without_keras

if TYPE_CHECKING:  # commands that only name an engine start faster
    from serving.model_server.servable import Load


class Engine(StrEnum):
    """The engines, by the names of the packages that they need."""

    OPENVINO = "openvino"
    """Starts in less than a second and takes a sixth of TensorFlow's memory, and can't take every SavedModel."""
    TENSORFLOW = "tensorflow"
    """Takes every SavedModel, in the session that TensorFlow Serving runs too."""


DEFAULT_ENGINE: Final = Engine.OPENVINO


def loader(engine: Engine) -> "Load":
    """Imports an engine, and returns what loads a version.

    Raises ImportError where its package isn't installed.
    """
    match engine:
        case Engine.OPENVINO:
            from serving.model_server.engines import openvino

            return openvino.load
        case Engine.TENSORFLOW:
            with quiet_tensorflow_import(), without_keras():
                from serving.model_server.engines import tensorflow

            return tensorflow.load
