"""A model's signatures, and the checks that a request passes before it runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from grpc import StatusCode
from numpy.typing import NDArray

from serving import apis, tensors
from serving.contract import SIGNATURE
from serving.model_server.errors import ServingError

Arrays = Mapping[str, NDArray[Any]]
"""Named inputs or outputs."""

METHODS: Final = tuple(f"tensorflow/serving/{method}" for method in ("predict", "classify", "regress"))
"""The method names that Predict runs."""


@dataclass(frozen=True)
class Signature:
    """What can be run: ``dtypes`` are TensorFlow's numbers by input name, ``outputs`` the outputs' names, ``ranks`` the
    numbers of dimensions by input name, where there are two and more.
    """

    name: str
    method_name: str
    dtypes: Mapping[str, int]
    outputs: tuple[str, ...]
    ranks: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def from_proto(cls, name: str, proto: apis.SignatureDef) -> "Signature":
        """Returns the signature that a SavedModel keeps under ``name``."""
        dtypes = {key: info.dtype for key, info in sorted(proto.inputs.items())}
        ranks = {key: rank for key, info in proto.inputs.items() if (rank := len(info.tensor_shape.dim)) > 1}
        return cls(name, proto.method_name, dtypes, tuple(sorted(proto.outputs)), ranks)


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
    """Returns a request's inputs as arrays. Their sizes are not compared with the signature's, as in TensorFlow
    Serving, but the number of their dimensions is: TensorFlow's convolutions end the process at a wrong one.

    Raises ServingError INVALID_ARGUMENT for a missing, extra or misnamed input, a wrong dtype, a wrong number of
    dimensions where there should be two and more, and a tensor that can't be read.
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
        if arrays[name].ndim != (rank := signature.ranks.get(name, arrays[name].ndim)):
            raise ServingError(
                StatusCode.INVALID_ARGUMENT,
                f"input {name} has the shape {list(arrays[name].shape)}; {rank} dimensions are expected",
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
