"""SavedModels that OpenVINO runs, on the CPU and in float32, and the checks that a request passes before it runs.

model = load(Path("models/generator/1"))
(outputs,) = model.run("serving_default", {"noise": noise})
"""

import gc
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from google.protobuf.message import DecodeError
from grpc import StatusCode
from numpy.typing import NDArray

from serving import apis
from serving.contract import SIGNATURE
from serving.model_server.errors import ServingError, invalid_argument
from serving.tf_serving import tensors

# OpenVINO imports its converter, which reports that over the network, and which nothing here uses. With None in
# sys.modules that import fails, and OpenVINO works without it.
_converter = sys.modules.setdefault("openvino.tools.ovc", None)  # type: ignore[arg-type]
import openvino  # noqa: E402

if _converter is None:
    del sys.modules["openvino.tools.ovc"]

Arrays = Mapping[str, NDArray[Any]]
"""Named inputs or outputs."""

_METHODS: Final = tuple(f"tensorflow/serving/{method}" for method in ("predict", "classify", "regress"))
"""The method names that Predict runs."""
_SERVING_TAG: Final = "serve"
_GRAPH: Final = "saved_model.pb"
_VARIABLES: Final = "variables"
_UNINITIALIZED: Final = "is not initialized"
"""OpenVINO's words for a variable that has no value."""
_STRING: Final = 7
"""TensorFlow's number of the dtype."""

_CORE: Final = openvino.Core()
openvino.Type.f32.to_dtype()  # The first call makes OpenVINO's table of dtypes: two threads in it block each other.


class SavedModel:
    """A SavedModel in memory."""

    def __init__(self, path: Path, signature_defs: apis.SignatureDefMap, compiled: Mapping[str, Any]) -> None:
        self.signature_defs = signature_defs
        self._path = path
        self._compiled = dict(compiled)

    def read(self, request: apis.PredictRequest) -> tuple[str, Arrays, Sequence[str]]:
        """Returns the name of the signature, the inputs, and the names of the outputs to answer with.

        Raises ServingError: FAILED_PRECONDITION for an unknown signature, INTERNAL for one that is not made to be run
        (like the one that initialises a model), INVALID_ARGUMENT for a missing, extra or misnamed input, a wrong dtype
        or shape, a tensor that can't be read, and an output that doesn't exist or comes twice.
        """
        name = request.model_spec.signature_name or SIGNATURE
        if name not in self.signature_defs.signature_def:
            raise ServingError(StatusCode.FAILED_PRECONDITION, f'Serving signature key "{name}" not found.')
        signature = self.signature_defs.signature_def[name]
        if signature.method_name not in _METHODS:
            raise ServingError(
                StatusCode.INTERNAL,
                f'Signature "{name}" has the method name "{signature.method_name}", not one of {", ".join(_METHODS)}.',
            )
        inputs = _read_inputs(signature.inputs, request.inputs)
        for output in request.output_filter:
            if output not in signature.outputs:
                raise invalid_argument(
                    f"output tensor alias not found in signature: {output}. "
                    f"Outputs expected to be in the set {_set(signature.outputs)}."
                )
        if len(set(request.output_filter)) < len(request.output_filter):
            raise invalid_argument(f"duplicate output tensor alias among {', '.join(request.output_filter)}")
        return name, inputs, request.output_filter or sorted(signature.outputs)

    def run(self, signature_name: str, *batches: Arrays) -> list[dict[str, NDArray[Any]]]:
        """Returns all outputs of a signature for each batch of inputs, which have its names and dtypes.

        OpenVINO puts all CPUs to one batch after the other, in the order in which they come, from any thread.

        Raises ServingError: INVALID_ARGUMENT for a shape that an operation can't take, FAILED_PRECONDITION where the
        model's variables are missing.
        """
        compiled = self._compiled[signature_name]
        if compiled is None:  # TensorFlow Serving finds that out at a request, too
            raise ServingError(
                StatusCode.FAILED_PRECONDITION, f"Could not find variable values: {self._path / _VARIABLES} is missing"
            )
        names = self.signature_defs.signature_def[signature_name].outputs
        any_rows, one_row = compiled
        requests = []
        try:
            for inputs in batches:
                is_one_row = all(array.shape[:1] == (1,) for array in inputs.values())
                requests.append((one_row if is_one_row else any_rows).create_infer_request())
                requests[-1].start_async(dict(inputs), share_inputs=True)
            for request in requests:
                request.wait()
        except RuntimeError as error:
            raise invalid_argument(_message(error)) from error
        return [{name: request.get_tensor(name).data for name in names} for request in requests]

    def close(self) -> None:
        """Frees the model's memory. No ``run`` may follow."""
        self._compiled.clear()
        gc.collect()


def _read_inputs(declared: Mapping[str, apis.TensorInfo], inputs: Mapping[str, apis.TensorProto]) -> Arrays:
    if inputs.keys() != declared.keys():
        raise invalid_argument(
            f"input names do not match signature: sent {_set(inputs)}, expected {_set(declared)}. "
            f"Sent extra: {_set(inputs.keys() - declared.keys())}. "
            f"Missing but required: {_set(declared.keys() - inputs.keys())}."
        )
    arrays = {}
    for position, (name, info) in enumerate(sorted(declared.items())):
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


def _set(names: Iterable[str]) -> str:
    return "{" + ",".join(sorted(names)) + "}"


def load(path: Path, threads: int = 0) -> SavedModel:
    """Loads the SavedModel in the directory ``path``, to run on so many threads (0: one for each CPU).

    Raises ServingError: NOT_FOUND without a graph for serving, DATA_LOSS for a graph that can't be parsed,
    OUT_OF_RANGE for a variables file that is too short, UNIMPLEMENTED for a graph that OpenVINO can't run.
    """
    saved = _read(path)
    hints = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
        "ENABLE_CPU_PINNING": False,  # other processes use these CPUs too
    }
    if threads:
        hints["INFERENCE_NUM_THREADS"] = threads
    signature_defs = apis.SignatureDefMap(signature_def=saved.meta_graphs[0].signature_def)
    compiled: dict[str, tuple[Any, Any] | None] = {}
    for name, proto in signature_defs.signature_def.items():
        if proto.method_name not in _METHODS:
            continue
        if any(info.dtype == _STRING for info in (*proto.inputs.values(), *proto.outputs.values())):
            raise _unsupported(path, name, "it has strings")
        if any(info.tensor_shape.unknown_rank for info in proto.inputs.values()):
            raise _unsupported(path, name, "an input has an unknown rank")
        try:
            compiled[name] = _compile(_converted(path, saved, proto), hints, name == SIGNATURE)
        except RuntimeError as error:
            if _UNINITIALIZED not in str(error) or (path / _VARIABLES / "variables.index").exists():
                raise _load_error(path, name, error) from error
            compiled[name] = None
    return SavedModel(path, signature_defs, compiled)


def _read(path: Path) -> apis.SavedModel:
    """Returns the SavedModel with one graph: the first for serving."""
    try:
        saved = apis.SavedModel.FromString((path / _GRAPH).read_bytes())
    except OSError as error:
        raise ServingError(StatusCode.NOT_FOUND, f"no {_GRAPH} in {path}") from error
    except DecodeError as error:
        raise ServingError(StatusCode.DATA_LOSS, f"the graph in {path} can't be parsed: {error}") from error
    for at, meta_graph in enumerate(saved.meta_graphs):
        if _SERVING_TAG in meta_graph.meta_info_def.tags:
            del saved.meta_graphs[at + 1 :], saved.meta_graphs[:at]
            return saved
    raise ServingError(StatusCode.NOT_FOUND, f'no graph with the tag "{_SERVING_TAG}" in {path}')


def _converted(path: Path, saved: apis.SavedModel, signature: apis.SignatureDef) -> Any:
    """Returns a signature as OpenVINO's own graph. ``saved`` keeps no other: OpenVINO reads one only."""
    signatures = saved.meta_graphs[0].signature_def
    signatures.clear()
    signatures[SIGNATURE].CopyFrom(signature)
    with tempfile.TemporaryDirectory() as directory:
        target = Path(directory)
        (target / _GRAPH).write_bytes(saved.SerializeToString())
        if (path / _VARIABLES).is_dir():
            (target / _VARIABLES).symlink_to((path / _VARIABLES).absolute())
        return _CORE.read_model(target)


def _compile(graph: Any, hints: dict[str, Any], for_one_row: bool) -> tuple[Any, Any]:
    """Returns the graph compiled for any number of rows, and for one row: fixed shapes save time."""
    any_rows = one_row = _CORE.compile_model(graph, "CPU", hints)
    if for_one_row:
        with suppress(RuntimeError):  # its operations do not take one row
            graph.reshape({port: openvino.PartialShape([1, *list(port.partial_shape)[1:]]) for port in graph.inputs})
            one_row = _CORE.compile_model(graph, "CPU", hints)
    return any_rows, one_row


def _load_error(path: Path, signature: str, error: RuntimeError) -> ServingError:
    message = _message(error)
    if "exceed data size" in message:
        return ServingError(StatusCode.OUT_OF_RANGE, f"the variables in {path} are too short: {message}")
    if _UNINITIALIZED in message:
        return ServingError(StatusCode.NOT_FOUND, f"variables are missing in {path}: {message}")
    return _unsupported(path, signature, message)


def _unsupported(path: Path, signature: str, reason: str) -> ServingError:
    return ServingError(
        StatusCode.UNIMPLEMENTED,
        f"the embedded model server can't run the signature {signature} in {path}: {reason}. "
        "Serve this model with TensorFlow Serving (tensorflow_model_server), which runs every SavedModel",
    )


def _message(error: RuntimeError) -> str:
    """Returns OpenVINO's message without the places in its source and what to read about it."""
    lines = (line.strip() for line in str(error).splitlines())
    return " ".join(line for line in lines if line and not line.startswith(("Exception from", "Check '", "To facil")))
