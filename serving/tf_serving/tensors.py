"""NumPy arrays to and from TensorProto, without TensorFlow.

An array is written as raw bytes (``tensor_content``). Raw bytes are read, and the typed lists (``float_val`` …) by
TensorFlow's rules: a short list repeats its last value, a long one is cut, and an empty one means zeros.
"""

import math
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from serving.apis import TensorProto

MAX_BYTES: Final = 64 * 2**20
"""The largest array that a typed list fills, in bytes: a list of one value can claim any shape."""

# dtype number -> (TensorFlow's name, NumPy's name, the list's field). The numbers and names are those of
# tensorflow/core/framework/types.proto and DataTypeString, the fields those of tensor.proto.
_DTYPES: Final[dict[int, tuple[str, str, str]]] = {
    1: ("float", "float32", "float_val"),
    2: ("double", "float64", "double_val"),
    3: ("int32", "int32", "int_val"),
    4: ("uint8", "uint8", "int_val"),
    5: ("int16", "int16", "int_val"),
    6: ("int8", "int8", "int_val"),
    9: ("int64", "int64", "int64_val"),
    10: ("bool", "bool", "bool_val"),
    17: ("uint16", "uint16", "int_val"),
    19: ("half", "float16", "half_val"),
    22: ("uint32", "uint32", "uint32_val"),
    23: ("uint64", "uint64", "uint64_val"),
}
_NUMBERS: Final = {numpy_name: number for number, (_, numpy_name, _) in _DTYPES.items()}


class TensorError(ValueError):
    """A TensorProto that no array corresponds to, or an array of a dtype that has no TensorProto here."""


def dtype_name(number: int) -> str:
    """Returns TensorFlow's name for a DataType number: "float", "uint8" …; "DT_<number>" for those not supported."""
    return _DTYPES[number][0] if number in _DTYPES else f"DT_{number}"


def to_proto(array: NDArray[Any]) -> TensorProto:
    """Returns ``array`` (numbers or bool, in any shape) as a TensorProto.

    Raises TensorError for a dtype that isn't supported (complex, bfloat16, strings …).
    """
    number = _NUMBERS.get(array.dtype.name)
    if number is None:
        raise TensorError(f"no TensorProto for dtype {array.dtype.name}")
    return TensorProto(
        dtype=number,
        tensor_shape={"dim": [{"size": size} for size in array.shape]},
        tensor_content=np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes(),
    )


def to_array(proto: TensorProto) -> NDArray[Any]:
    """Returns the array in ``proto``; of ``tensor_content``, it is a read-only view.

    Raises TensorError for a dtype that is missing or not supported, an unknown rank, a negative dimension,
    content that doesn't fill the shape exactly or isn't of the dtype, or a list for more than MAX_BYTES.
    """
    if proto.dtype not in _DTYPES:
        raise TensorError(f"unsupported dtype {dtype_name(proto.dtype)}" if proto.dtype else "no dtype")
    _, numpy_name, list_field = _DTYPES[proto.dtype]
    dtype = np.dtype(numpy_name)
    shape = [dim.size for dim in proto.tensor_shape.dim]
    if proto.tensor_shape.unknown_rank:
        raise TensorError("the shape has an unknown rank")
    if any(size < 0 for size in shape):
        raise TensorError(f"shape {shape} has a negative dimension")
    count, content = math.prod(shape), proto.tensor_content
    if not content and count * dtype.itemsize > MAX_BYTES:
        raise TensorError(f"shape {shape} of {numpy_name} is larger than {MAX_BYTES} bytes: send tensor_content")
    if content and len(content) != count * dtype.itemsize:
        raise TensorError(f"{len(content)} bytes of content do not fill shape {shape} of {numpy_name}")
    if content and dtype.kind == "b" and content.translate(None, b"\0\1"):
        raise TensorError("bool content has bytes other than 0 and 1")
    try:
        if content:
            return np.frombuffer(content, dtype.newbyteorder("<")).astype(dtype, copy=False).reshape(shape)
        return _from_list(getattr(proto, list_field), count, dtype).reshape(shape)
    except (ValueError, MemoryError) as error:  # NumPy's limits: 64 dimensions, the address space
        raise TensorError(str(error)) from error


def _from_list(values: Any, count: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    kept = values[:count]
    array = np.zeros(count, dtype)
    if kept:
        if dtype == np.float16:  # the list holds the bits
            head = np.array(kept, np.int64).astype(np.uint16).view(np.float16)
        elif dtype.kind in "iu":  # a list's int32 wraps around in a narrower dtype, as in TensorFlow
            head = np.array(kept, np.uint64 if dtype == np.uint64 else np.int64).astype(dtype)
        else:
            head = np.array(kept, dtype)
        array[: len(head)] = head
        array[len(head) :] = head[-1]
    return array
