"""The encoding of inference requests and answers: JSON, with the bytes of some tensors after it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import orjson

from api.http.bodies import parse_json
from api.http.problems import MALFORMED_REQUEST, ProblemError, at_pointer, invalid
from api.oip import tensors
from api.oip.schemas import InferenceRequest, InputTensor
from api.oip.tensors import DATATYPES, Array
from serving.contract import ModelSpec, TensorSpec
from serving.tf_serving.client import Prediction

HEADER_LENGTH: Final = "Inference-Header-Content-Length"
"""The header that says how many bytes of a body are JSON, where it isn't all of them."""


@dataclass(frozen=True)
class ParsedInference:
    """A request that was read. ``rows``: the input, checked. ``outputs``: for each output to return, in the order of
    the request, whether it is sent as bytes.
    """

    rows: Array
    outputs: Mapping[str, bool]
    id: str | None = None


def read_request(body: bytes, header_length: str | None, spec: ModelSpec, most_rows: int) -> ParsedInference:
    """Returns the request in ``body`` for the model ``spec``. ``header_length``: the header HEADER_LENGTH, if present.

    A length of 0 is Triton's raw binary request: all of the body is the input, and the outputs come as bytes.

    Raises ProblemError: 400 if it can't be read, 422 naming the field at fault.
    """
    if header_length is None:
        json_bytes = len(body)
    elif header_length.isascii() and header_length.isdecimal() and int(header_length) <= len(body):
        json_bytes = int(header_length)
    else:
        raise ProblemError(MALFORMED_REQUEST, f"{HEADER_LENGTH}: should be the length of the JSON in the body")
    if header_length is not None and json_bytes == 0:
        return ParsedInference(_raw(body, spec.input, most_rows), {output.name: True for output in spec.outputs})
    request = parse_json(body[:json_bytes], InferenceRequest)
    rows = _input(request.inputs, body[json_bytes:], spec.input, most_rows)
    return ParsedInference(rows, _outputs(request, spec), request.id)


def _raw(body: bytes, spec: TensorSpec, most_rows: int) -> Array:
    row_bytes = int(np.prod(spec.shape)) * np.dtype(spec.dtype).itemsize
    count, rest = divmod(len(body), row_bytes)
    if rest or not 1 <= count <= most_rows:
        detail = f"{len(body)} bytes; a row of {spec.name} has {row_bytes}, and 1 to {most_rows} rows are taken"
        raise invalid(at_pointer("", detail))
    return tensors.from_bytes(body, (count, *spec.shape), spec, "")


def _input(inputs: Sequence[InputTensor], content: bytes, spec: TensorSpec, most_rows: int) -> Array:
    if len(inputs) != 1:
        raise invalid(at_pointer("/inputs", f"should be one tensor, {spec.name}"))
    place, tensor = "/inputs/0", inputs[0]
    size = tensor.parameters.binary_data_size if tensor.parameters else None
    if (tensor.data is None) == (size is None):
        raise invalid(at_pointer(f"{place}/data", "either data or parameters.binary_data_size should be given"))
    if len(content) != (size or 0):
        where = f"{place}/parameters/binary_data_size"
        raise invalid(at_pointer(where, f"is {size or 0}, and {len(content)} bytes come after the JSON"))
    shape = tensors.shape_of(tensor, spec, most_rows, place)
    if tensor.data is None:
        return tensors.from_bytes(content, shape, spec, place)
    return tensors.from_json(tensor.data, shape, spec, place)


def _outputs(request: InferenceRequest, spec: ModelSpec) -> dict[str, bool]:
    known = [output.name for output in spec.outputs]
    default = bool(request.parameters and request.parameters.binary_data_output)
    if not request.outputs:
        return dict.fromkeys(known, default)
    chosen: dict[str, bool] = {}
    for index, output in enumerate(request.outputs):
        place = f"/outputs/{index}"
        if output.name not in known:
            raise invalid(at_pointer(f"{place}/name", f"the model's outputs are {' and '.join(known)}"))
        if output.name in chosen:
            raise invalid(at_pointer(f"{place}/name", "is named twice"))
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
    answer: dict[str, Any] = {
        "model_name": prediction.model,
        "model_version": str(prediction.version),
        "outputs": entries,
    }
    if parsed.id is not None:
        answer["id"] = parsed.id
    head = orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)
    if not parts:
        return head, {"Content-Type": "application/json"}
    headers = {"Content-Type": "application/octet-stream", HEADER_LENGTH: str(len(head))}
    return b"".join((head, *parts)), headers
