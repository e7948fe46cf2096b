"""The weights of the generator in the package, taken back out of its inference graph."""

from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from serving.quiet import quiet_tensorflow_import

Array = NDArray[Any]

_SUB_PIXEL: Final = {0: (1, 1), 1: (0, 0), 2: (1, 0), 3: (0, -1), 4: (1, -1)}
"""Where a tap of a stride-2 transposed convolution is in its sub-pixel form: the phase, and the offset of the input."""


def weights(version: Path) -> dict[str, Array]:
    """Returns the plain network's weights, kernels as of transposed convolutions: [5, 5, out, in]."""
    with quiet_tensorflow_import():
        from training.gan.convolution import four_product_transforms

    constants = _constants(version / "saved_model.pb")
    # The dense layer writes a row for each position. Of the next one there are the spectra of its kernel.
    dense = _only(constants, (49, 1, 100, 256))[:, 0]
    _, of_kernel, _ = four_product_transforms(7, 5, True)
    spectra = _only(constants, (len(of_kernel) // 2, 2, 256, 128)).reshape(len(of_kernel), -1)
    first = np.linalg.lstsq(of_kernel, spectra)[0].reshape(5, 5, 256, 128)
    return {
        "dense_kernel": np.ascontiguousarray(dense.transpose(1, 0, 2)).reshape(100, -1),
        "dense_bias": _only(constants, (49, 1, 1, 256)).reshape(-1),
        "first_kernel": np.ascontiguousarray(first.transpose(0, 1, 3, 2)),
        "first_bias": _only(constants, (128,)),
        "second_kernel": _transposed(constants, 128, 64),
        "second_bias": _only(constants, (4 * 64,))[:64],
        "last_kernel": _transposed(constants, 64, 1),
    }


def _transposed(constants: list[Array], inputs: int, outputs: int) -> Array:
    """Returns a stride-2 kernel, [5, 5, out, in], from its sub-pixel form."""
    phases = _only(constants, (3, 3, inputs, 4 * outputs)).reshape(3, 3, inputs, 2, 2, outputs)
    kernel = np.empty((5, 5, outputs, inputs), np.float32)
    for y, (row_phase, row) in _SUB_PIXEL.items():
        for x, (column_phase, column) in _SUB_PIXEL.items():
            kernel[y, x] = phases[row + 1, column + 1, :, row_phase, column_phase].T
    return kernel


def _only(constants: list[Array], shape: tuple[int, ...]) -> Array:
    found = [constant for constant in constants if constant.shape == shape]
    if not found or any(not np.array_equal(found[0], one) for one in found):
        raise RuntimeError(f"{len(found)} constants of shape {list(shape)} in the generator's graph")
    return found[0]


def _constants(path: Path) -> list[Array]:
    """Returns all float32 constants of a SavedModel's functions."""
    with quiet_tensorflow_import():
        import tensorflow as tf
        from tensorflow.core.protobuf import saved_model_pb2

    graph = saved_model_pb2.SavedModel.FromString(path.read_bytes()).meta_graphs[0].graph_def
    nodes = [*graph.node, *(node for function in graph.library.function for node in function.node_def)]
    tensors = [node.attr["value"].tensor for node in nodes if node.op == "Const"]
    return [tf.make_ndarray(tensor) for tensor in tensors if tensor.dtype == tf.float32.as_datatype_enum]
