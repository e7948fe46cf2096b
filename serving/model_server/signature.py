"""A model's signatures, and the checks that a request passes before it runs."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from grpc import StatusCode
from numpy.typing import NDArray

from serving import apis
from serving.model_server.errors import ServingError, invalid_argument
from serving.tf_serving import tensors

Arrays = Mapping[str, NDArray[Any]]
"""Named inputs or outputs."""

METHODS: Final = tuple(f"tensorflow/serving/{method}" for method in ("predict", "classify", "regress"))
"""The method names that Predict runs."""


def choose(signatures: Mapping[str, apis.SignatureDef], name: str) -> apis.SignatureDef:
    """Returns the signature called ``name``.

    Raises ServingError: FAILED_PRECONDITION for a name that doesn't exist, INTERNAL for a signature that
    isn't made to be run (like the one that initialises a model).
    """
    if name not in signatures:
        raise ServingError(StatusCode.FAILED_PRECONDITION, f'Serving signature key "{name}" not found.')
    signature = signatures[name]
    if signature.method_name not in METHODS:
        raise ServingError(
            StatusCode.INTERNAL,
            f'Signature "{name}" has the method name "{signature.method_name}", not one of {", ".join(METHODS)}.',
        )
    return signature


def read_inputs(signature: apis.SignatureDef, inputs: Mapping[str, apis.TensorProto]) -> dict[str, NDArray[Any]]:
    """Returns a request's inputs as arrays.

    Raises ServingError INVALID_ARGUMENT for a missing, extra or misnamed input, a wrong dtype or shape, and a tensor
    that can't be read.
    """
    declared = dict(sorted(signature.inputs.items()))
    if inputs.keys() != declared.keys():
        raise invalid_argument(
            f"input names do not match signature: sent {_set(inputs)}, expected {_set(declared)}. "
            f"Sent extra: {_set(inputs.keys() - declared.keys())}. "
            f"Missing but required: {_set(declared.keys() - inputs.keys())}."
        )
    arrays = {}
    for position, (name, info) in enumerate(declared.items()):
        proto = inputs[name]
        if proto.dtype not in (info.dtype, 0):
            raise invalid_argument(
                f"Expects arg[{position}] to be {tensors.dtype_name(info.dtype)} "
                f"but {tensors.dtype_name(proto.dtype)} is provided (input {name})"
            )
        try:
            array = arrays[name] = tensors.to_array(proto)
        except tensors.TensorError as error:
            raise invalid_argument(f"tensor parsing error: {name}: {error}") from error
        shape = [dim.size for dim in info.tensor_shape.dim]  # -1 for a free size
        if len(shape) != array.ndim or any(own not in (-1, size) for own, size in zip(shape, array.shape, strict=True)):
            raise invalid_argument(f"input {name} should be of shape {shape}, not {list(array.shape)}")
    return arrays


def choose_outputs(signature: apis.SignatureDef, output_filter: Sequence[str]) -> Sequence[str]:
    """Returns the names of the outputs to answer with: those of the filter, or all when it is empty.

    Raises ServingError INVALID_ARGUMENT for a name that doesn't exist or comes twice.
    """
    for name in output_filter:
        if name not in signature.outputs:
            raise invalid_argument(
                f"output tensor alias not found in signature: {name}. "
                f"Outputs expected to be in the set {_set(signature.outputs)}."
            )
    if len(set(output_filter)) < len(output_filter):
        raise invalid_argument(f"duplicate output tensor alias among {', '.join(output_filter)}")
    return output_filter or sorted(signature.outputs)


def _set(names: Any) -> str:
    return "{" + ",".join(sorted(names)) + "}"
