"""Tensors of the Open Inference Protocol: JSON numbers or little-endian bytes, to and from arrays of the contract."""

import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from api.http.problems import ProblemError, at_pointer, invalid
from api.oip.schemas import InputTensor, TensorMetadata
from serving.contract import TensorSpec

Array = NDArray[Any]

DATATYPES: Final = {"float32": "FP32", "uint8": "UINT8"}
"""The protocol's names for the contract's dtypes."""


def metadata(spec: TensorSpec) -> TensorMetadata:
    """Returns the protocol's description of a tensor. The batch dimension is -1: any size."""
    return TensorMetadata(name=spec.name, datatype=DATATYPES[spec.dtype], shape=[-1, *spec.shape])


def shape_of(tensor: InputTensor, spec: TensorSpec, most_rows: int, place: str) -> tuple[int, ...]:
    """Returns the shape of an input that fits ``spec`` with 1 to ``most_rows`` rows.

    Raises ProblemError (422) naming the field below ``place``, a JSON pointer.
    """
    if tensor.name != spec.name:
        raise _wrong(place, "name", f"the model's input is {spec.name}")
    if tensor.datatype != DATATYPES[spec.dtype]:
        raise _wrong(place, "datatype", f"should be {DATATYPES[spec.dtype]}")
    rows, *rest = tensor.shape or (0,)
    if tuple(rest) != spec.shape or not 1 <= rows <= most_rows:
        expected = ", ".join(map(str, ("N", *spec.shape)))
        raise _wrong(place, "shape", f"should be [{expected}], with N from 1 to {most_rows}")
    return rows, *spec.shape


def from_bytes(content: bytes, shape: Sequence[int], spec: TensorSpec, place: str) -> Array:
    """Returns the array in ``content``: row-major, little-endian, without gaps. Raises ProblemError (422)."""
    dtype = np.dtype(spec.dtype).newbyteorder("<")
    if len(content) != math.prod(shape) * dtype.itemsize:
        size = math.prod(shape) * dtype.itemsize
        raise _wrong(
            place, "parameters/binary_data_size", f"{len(content)} bytes, where shape and datatype need {size}"
        )
    return _finite(np.frombuffer(content, dtype).astype(spec.dtype, copy=False).reshape(shape), place)


def from_json(data: Sequence[Any], shape: Sequence[int], spec: TensorSpec, place: str) -> Array:
    """Returns the array of JSON numbers, nested as ``shape`` says or flat. Raises ProblemError (422)."""
    dtype = np.dtype(spec.dtype)
    try:
        found = np.array(data)
    except (ValueError, OverflowError) as error:  # ragged, or too deep
        raise _wrong(place, "data", "should be numbers, flat or nested as the shape says") from error
    if found.shape not in (tuple(shape), (math.prod(shape),)):
        raise _wrong(
            place, "data", f"has the shape {list(found.shape)} in place of {list(shape)} or {math.prod(shape)}"
        )
    if found.dtype.kind not in ("iu" if dtype.kind == "u" else "iuf"):
        raise _wrong(place, "data", f"should be {'integers' if dtype.kind == 'u' else 'numbers'}")
    if dtype.kind == "u":
        most = np.iinfo(dtype).max
        if found.min() < 0 or found.max() > most:
            raise _wrong(place, "data", f"should be from 0 to {most}")
    with np.errstate(over="ignore"):
        return _finite(found.astype(dtype).reshape(shape), place)


def _finite(array: Array, place: str) -> Array:
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise _wrong(place, "data", "should be finite float32 numbers")
    return array


def _wrong(place: str, field: str, detail: str) -> ProblemError:
    return invalid(at_pointer(f"{place}/{field}", detail))
