"""The encoding of inference requests and answers: JSON, with the bytes of some tensors after it."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import orjson

from api.http.bodies import parse_json
from api.http.problems import MALFORMED_REQUEST, ProblemError, at_pointer, invalid
from api.oip.schemas import InferenceRequest, InputTensor
from serving.contract import ModelSpec, TensorSpec
from serving.tf_serving.client import Array, Prediction

HEADER_LENGTH: Final = "Inference-Header-Content-Length"  # says how many bytes of a body are JSON, if not all
DATATYPES: Final = {"float32": "FP32", "uint8": "UINT8"}  # the protocol's names for the contract's dtypes
_PLACE: Final = "/inputs/0"
_FINITE: Final = "should be finite float32 numbers"


@dataclass(frozen=True)
class ParsedInference:
    """A request: its input, and for each output to return, in order, whether it is sent as bytes."""

    rows: Array
    outputs: Mapping[str, bool]
    id: str | None = None


def read_request(body: bytes, header_length: str | None, spec: ModelSpec, most_rows: int) -> ParsedInference:
    """Returns the request in ``body`` for the model ``spec``. Raises ProblemError: 400, or 422 naming the field.

    A ``header_length`` of 0 is Triton's raw binary request: the body is the input, and the outputs come as bytes.
    """
    json_bytes = len(body)
    if header_length is not None:
        if not re.fullmatch("[0-9]{1,18}", header_length) or int(header_length) > len(body):
            raise ProblemError(MALFORMED_REQUEST, f"{HEADER_LENGTH}: should be the length of the JSON in the body")
        json_bytes = int(header_length)
        if json_bytes == 0:
            rows = _finite(_from_bytes(body, spec.input, most_rows, ""), "")
            return ParsedInference(rows, {output.name: True for output in spec.outputs})
    request = parse_json(body[:json_bytes], InferenceRequest)
    if len(request.inputs) != 1:
        raise invalid(at_pointer("/inputs", f"should be one tensor, {spec.input.name}"))
    rows = _input(request.inputs[0], body[json_bytes:], spec.input, most_rows)
    return ParsedInference(rows, _outputs(request, spec), request.id)


def _input(tensor: InputTensor, content: bytes, spec: TensorSpec, most_rows: int) -> Array:
    """Returns the input of a model: the numbers in ``tensor``, nested or flat, or the bytes in ``content``."""
    if tensor.name != spec.name:
        raise _wrong("name", f"the model's input is {spec.name}")
    if tensor.datatype != DATATYPES[spec.dtype]:
        raise _wrong("datatype", f"should be {DATATYPES[spec.dtype]}")
    count, *rest = tensor.shape or (0,)
    if tuple(rest) != spec.shape or not 1 <= count <= most_rows:
        expected = ", ".join(map(str, ("N", *spec.shape)))
        raise _wrong("shape", f"should be [{expected}], with N from 1 to {most_rows}")
    size = tensor.parameters.binary_data_size if tensor.parameters else None
    if (tensor.data is None) == (size is None):
        raise _wrong("data", "either data or parameters.binary_data_size should be given")
    if len(content) != (size or 0):
        raise _wrong("parameters/binary_data_size", f"is {size or 0}, and {len(content)} bytes come after the JSON")
    if tensor.data is not None:
        rows = _from_json(tensor.data, tensor.shape, np.dtype(spec.dtype))
    else:
        rows = _from_bytes(content, spec, most_rows, f"{_PLACE}/parameters/binary_data_size")
    if len(rows) != count:
        detail = f"the bytes are {len(rows)} rows, and the shape says {count}"
        raise _wrong("parameters/binary_data_size", detail)
    return _finite(rows, f"{_PLACE}/data")


def _from_bytes(content: bytes, spec: TensorSpec, most_rows: int, pointer: str) -> Array:
    """Returns the rows in ``content``: row-major, little-endian, without gaps."""
    row_bytes = math.prod(spec.shape) * np.dtype(spec.dtype).itemsize
    count, rest = divmod(len(content), row_bytes)
    if rest or not 1 <= count <= most_rows:
        detail = f"{len(content)} bytes; a row of {spec.name} has {row_bytes}, and 1 to {most_rows} rows are taken"
        raise invalid(at_pointer(pointer, detail))
    numbers = np.frombuffer(content, np.dtype(spec.dtype).newbyteorder("<")).astype(spec.dtype, copy=False)
    return numbers.reshape(count, *spec.shape)


def _from_json(data: list[Any], shape: list[int], dtype: np.dtype[Any]) -> Array:
    found = np.array(data, object)  # as strings, NumPy would give each element the length of the longest
    if found.shape not in (tuple(shape), (math.prod(shape),)):
        raise _wrong("data", f"has the shape {list(found.shape)} in place of {shape} or {math.prod(shape)}")
    if not set(map(type, found.flat)) <= ({int} if dtype.kind == "u" else {int, float}):
        raise _wrong("data", f"should be {'integers' if dtype.kind == 'u' else 'numbers'}")
    if dtype.kind == "u" and (found.min() < 0 or found.max() > np.iinfo(dtype).max):
        raise _wrong("data", f"should be from 0 to {np.iinfo(dtype).max}")
    try:
        with np.errstate(over="ignore"):
            return found.astype(dtype).reshape(shape)
    except OverflowError as error:
        raise _wrong("data", _FINITE) from error


def _finite(array: Array, place: str) -> Array:
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise invalid(at_pointer(place, _FINITE))
    return array


def _wrong(field: str, detail: str) -> ProblemError:
    return invalid(at_pointer(f"{_PLACE}/{field}", detail))


def _outputs(request: InferenceRequest, spec: ModelSpec) -> dict[str, bool]:
    known = [output.name for output in spec.outputs]
    default = bool(request.parameters and request.parameters.binary_data_output)
    if not request.outputs:
        return dict.fromkeys(known, default)
    chosen: dict[str, bool] = {}
    for index, output in enumerate(request.outputs):
        place = f"/outputs/{index}/name"
        if output.name not in known:
            raise invalid(at_pointer(place, f"the model's outputs are {' and '.join(known)}"))
        if output.name in chosen:
            raise invalid(at_pointer(place, "is named twice"))
        binary = output.parameters.binary_data if output.parameters else None
        chosen[output.name] = default if binary is None else binary
    return chosen


def write_answer(prediction: Prediction, parsed: ParsedInference) -> tuple[bytes, dict[str, str]]:
    """Returns body and headers of the answer with the outputs that ``parsed`` names."""
    entries: list[dict[str, Any]] = []
    parts: list[bytes] = []
    for name, binary in parsed.outputs.items():
        array = np.ascontiguousarray(prediction.outputs[name])
        entry: dict[str, Any] = {"name": name, "datatype": DATATYPES[array.dtype.name], "shape": array.shape}
        if binary:
            parts.append(array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes())
            entry["parameters"] = {"binary_data_size": len(parts[-1])}
        else:
            entry["data"] = array.ravel()
        entries.append(entry)
    answer = {"model_name": prediction.model, "model_version": str(prediction.version), "outputs": entries}
    if parsed.id is not None:
        answer["id"] = parsed.id
    head = orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)
    if not parts:
        return head, {"Content-Type": "application/json"}
    headers = {"Content-Type": "application/octet-stream", HEADER_LENGTH: str(len(head))}
    return b"".join((head, *parts)), headers
