"""A model's signatures, and the checks that a request passes before it runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from grpc import StatusCode
from numpy.typing import NDArray

from serving import apis
from serving.contract import SIGNATURE
from serving.model_server.errors import ServingError
from serving.tf_serving import tensors

Arrays = Mapping[str, NDArray[Any]]
"""Named inputs or outputs."""

METHODS: Final = tuple(f"tensorflow/serving/{method}" for method in ("predict", "classify", "regress"))
"""The method names that Predict runs."""


@dataclass(frozen=True)
class Signature:
    """What can be run.

    Attributes:
        name: its name in the SavedModel.
        method_name: one of METHODS, if Predict runs it.
        dtypes: TensorFlow's numbers by input name.
        shapes: by input name, -1 for a free size.
        outputs: the names of the outputs.
    """

    name: str
    method_name: str
    dtypes: Mapping[str, int]
    shapes: Mapping[str, Sequence[int]]
    outputs: Sequence[str]

    @classmethod
    def from_proto(cls, name: str, proto: apis.SignatureDef) -> "Signature":
        """Returns the signature that a SavedModel keeps under ``name``."""
        inputs = dict(sorted(proto.inputs.items()))
        dtypes = {key: info.dtype for key, info in inputs.items()}
        shapes = {key: [dim.size for dim in info.tensor_shape.dim] for key, info in inputs.items()}
        return cls(name, proto.method_name, dtypes, shapes, sorted(proto.outputs))


def choose(signatures: Mapping[str, Signature], name: str) -> Signature:
    """Returns the signature called ``name``, "serving_default" when that is empty.

    Raises ServingError: FAILED_PRECONDITION for a name that doesn't exist, INTERNAL for a signature that
    isn't made to be run (like the one that initialises a model).
    """
    name = name or SIGNATURE
    signature = signatures.get(name)
    if signature is None:
        raise ServingError(StatusCode.FAILED_PRECONDITION, f'Serving signature key "{name}" not found.')
    if signature.method_name not in METHODS:
        raise ServingError(
            StatusCode.INTERNAL,
            f'Signature "{name}" has the method name "{signature.method_name}", not one of {", ".join(METHODS)}.',
        )
    return signature


def read_inputs(signature: Signature, inputs: Mapping[str, apis.TensorProto]) -> dict[str, NDArray[Any]]:
    """Returns a request's inputs as arrays.

    Raises ServingError INVALID_ARGUMENT for a missing, extra or misnamed input, a wrong dtype or shape, and a tensor
    that can't be read.
    """
    if inputs.keys() != signature.dtypes.keys():
        raise ServingError(
            StatusCode.INVALID_ARGUMENT,
            f"input names do not match signature: sent {_set(inputs)}, expected {_set(signature.dtypes)}. "
            f"Sent extra: {_set(inputs.keys() - signature.dtypes.keys())}. "
            f"Missing but required: {_set(signature.dtypes.keys() - inputs.keys())}.",
        )
    arrays = {}
    for position, (name, dtype) in enumerate(signature.dtypes.items()):
        proto = inputs[name]
        if proto.dtype not in (dtype, 0):
            raise ServingError(
                StatusCode.INVALID_ARGUMENT,
                f"Expects arg[{position}] to be {tensors.dtype_name(dtype)} "
                f"but {tensors.dtype_name(proto.dtype)} is provided (input {name})",
            )
        try:
            arrays[name] = tensors.to_array(proto)
        except tensors.TensorError as error:
            raise ServingError(StatusCode.INVALID_ARGUMENT, f"tensor parsing error: {name}: {error}") from error
        shape, declared = arrays[name].shape, signature.shapes[name]
        if len(shape) != len(declared) or any(own not in (-1, size) for own, size in zip(declared, shape, strict=True)):
            raise ServingError(
                StatusCode.INVALID_ARGUMENT, f"input {name} should be of shape {declared}, not {list(shape)}"
            )
    return arrays


def choose_outputs(signature: Signature, output_filter: Sequence[str]) -> Sequence[str]:
    """Returns the names of the outputs to answer with: those of the filter, or all when it is empty.

    Raises ServingError INVALID_ARGUMENT for a name that doesn't exist or comes twice.
    """
    for name in output_filter:
        if name not in signature.outputs:
            raise ServingError(
                StatusCode.INVALID_ARGUMENT,
                f"output tensor alias not found in signature: {name}. "
                f"Outputs expected to be in the set {_set(signature.outputs)}.",
            )
    if len(set(output_filter)) < len(output_filter):
        raise ServingError(
            StatusCode.INVALID_ARGUMENT, f"duplicate output tensor alias among {', '.join(output_filter)}"
        )
    return output_filter or signature.outputs


def _set(names: Any) -> str:
    return "{" + ",".join(sorted(names)) + "}"
