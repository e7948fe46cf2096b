"""TF32 without a GPU: what TensorFlow does to float32 operands on GPUs since Ampere."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.ops import gen_math_ops, gen_nn_ops

OPERATIONS: Final = (
    (gen_math_ops, "mat_mul"),
    (gen_math_ops, "batch_mat_mul_v2"),
    (gen_math_ops, "batch_mat_mul_v3"),
    (gen_nn_ops, "conv2d"),
    (gen_nn_ops, "conv2d_backprop_input"),
)
"""What tf.matmul, tf.nn.conv2d and tf.nn.conv2d_transpose call, for Keras's layers and for the exported graphs."""

_DROPPED_BITS: Final = 13
"""A float32 has a mantissa of 23 bits, TF32 one of 10."""


@contextmanager
def emulated_tf32() -> Iterator[None]:
    """In the block, matrix products and convolutions round their operands to TF32 while TensorFlow's flag allows it.

    The block begins with the flag set, as a process does. A graph keeps what the flag was when the graph was traced.
    """
    before = tf.config.experimental.tensor_float_32_execution_enabled()
    with pytest.MonkeyPatch.context() as patch:
        for module, name in OPERATIONS:
            patch.setattr(module, name, _with_rounded_operands(getattr(module, name)))
        tf.config.experimental.enable_tensor_float_32_execution(True)
        try:
            yield
        finally:
            tf.config.experimental.enable_tensor_float_32_execution(before)


def _with_rounded_operands(operation: Callable[..., Any]) -> Callable[..., Any]:
    def rounding(*operands: Any, **named: Any) -> Any:
        if tf.config.experimental.tensor_float_32_execution_enabled():
            operands = tuple(_rounded(operand) for operand in operands)
            named = {name: _rounded(operand) for name, operand in named.items()}
        return operation(*operands, **named)

    return rounding


def _rounded(operand: Any) -> Any:
    """Rounds float32 to the nearest number with a 10-bit mantissa, and leaves everything else unchanged."""
    if not isinstance(operand, tf.Tensor | np.ndarray) or operand.dtype != np.float32:
        return operand
    half, kept = 1 << (_DROPPED_BITS - 1), -1 << _DROPPED_BITS
    return tf.bitcast(tf.bitwise.bitwise_and(tf.bitcast(operand, tf.int32) + half, kept), tf.float32)
