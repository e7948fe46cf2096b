"""SavedModels that OpenVINO runs, on the CPU and in float32.

model = load(Path("models/generator/1"))
(outputs,) = model.run("serving_default", {"noise": noise})
"""

import gc
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from google.protobuf.message import DecodeError
from grpc import StatusCode
from numpy.typing import NDArray

from serving import apis
from serving.contract import SIGNATURE
from serving.model_server.errors import ServingError, invalid_argument
from serving.model_server.signature import METHODS, Arrays
from serving.quiet import without_openvino_converter

with without_openvino_converter():
    import openvino

SERVING_TAG: Final = "serve"
_GRAPH: Final = "saved_model.pb"
_VARIABLES: Final = "variables"
_UNINITIALIZED: Final = "is not initialized"
"""OpenVINO's words for a variable that has no value."""
_STRING: Final = 7
"""TensorFlow's number of the dtype."""


_CORE: Final = openvino.Core()


class SavedModel:
    """A SavedModel in memory."""

    def __init__(self, path: Path, signature_defs: apis.SignatureDefMap, compiled: Mapping[str, Any]) -> None:
        self.signature_defs = signature_defs
        self._path = path
        self._compiled = dict(compiled)

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
        requests = [compiled[_is_one_row(inputs)].create_infer_request() for inputs in batches]
        try:
            for request, inputs in zip(requests, batches, strict=True):
                request.start_async(dict(inputs), share_inputs=True)
            for request in requests:
                request.wait()
        except RuntimeError as error:
            raise invalid_argument(_message(error)) from error
        return [{name: request.get_tensor(name).data for name in names} for request in requests]

    def close(self) -> None:
        """Frees the model's memory. No ``run`` may follow."""
        self._compiled.clear()
        gc.collect()


def load(path: Path, threads: int = 0) -> SavedModel:
    """Loads the SavedModel in the directory ``path``, to run on so many threads (0: one for each CPU).

    Raises ServingError: NOT_FOUND without a graph for serving, DATA_LOSS for a graph that can't be parsed,
    OUT_OF_RANGE for a variables file that is too short, UNIMPLEMENTED for a graph that OpenVINO can't run.
    """
    meta_graph = _read(path)
    hints = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
        "ENABLE_CPU_PINNING": False,  # other processes use these CPUs too
    }
    if threads:
        hints["INFERENCE_NUM_THREADS"] = threads
    signature_defs = apis.SignatureDefMap()
    compiled: dict[str, tuple[Any, Any] | None] = {}
    for name, proto in meta_graph.signature_def.items():
        signature_defs.signature_def[name].CopyFrom(proto)
        if proto.method_name not in METHODS:
            continue
        if any(info.dtype == _STRING for info in (*proto.inputs.values(), *proto.outputs.values())):
            raise _unsupported(path, name, "it has strings")
        if any(info.tensor_shape.unknown_rank for info in proto.inputs.values()):
            raise _unsupported(path, name, "an input has an unknown rank")
        try:
            compiled[name] = _compile(_converted(path, meta_graph, name), hints, name == SIGNATURE)
        except RuntimeError as error:
            if _UNINITIALIZED not in str(error) or (path / _VARIABLES / "variables.index").exists():
                raise _load_error(path, name, error) from error
            compiled[name] = None
    return SavedModel(path, signature_defs, compiled)


def _read(path: Path) -> apis.MetaGraphDef:
    try:
        saved = apis.SavedModel.FromString((path / _GRAPH).read_bytes())
    except OSError as error:
        raise ServingError(StatusCode.NOT_FOUND, f"no {_GRAPH} in {path}") from error
    except DecodeError as error:
        raise ServingError(StatusCode.DATA_LOSS, f"the graph in {path} can't be parsed: {error}") from error
    for meta_graph in saved.meta_graphs:
        if SERVING_TAG in meta_graph.meta_info_def.tags:
            return meta_graph
    raise ServingError(StatusCode.NOT_FOUND, f'no graph with the tag "{SERVING_TAG}" in {path}')


def _converted(path: Path, meta_graph: apis.MetaGraphDef, name: str) -> Any:
    """Returns a signature as OpenVINO's own graph. OpenVINO reads the signature ``serving_default`` only."""
    saved = apis.SavedModel(saved_model_schema_version=1, meta_graphs=[meta_graph])
    signatures = saved.meta_graphs[0].signature_def
    signatures.clear()
    signatures[SIGNATURE].CopyFrom(meta_graph.signature_def[name])
    with tempfile.TemporaryDirectory() as directory:
        target = Path(directory)
        (target / _GRAPH).write_bytes(saved.SerializeToString())
        if (path / _VARIABLES).is_dir():
            (target / _VARIABLES).symlink_to((path / _VARIABLES).absolute())
        return _CORE.read_model(target)


def _compile(graph: Any, hints: dict[str, Any], for_one_row: bool) -> tuple[Any, Any]:
    """Returns the graph compiled for any number of rows, and for one row, which then takes two thirds of the time.

    The shapes of that one are fixed, so OpenVINO does not compute them in each run, with threads that wait for it.
    """
    any_rows = one_row = _CORE.compile_model(graph, "CPU", hints)
    if for_one_row:
        with suppress(RuntimeError):  # its operations do not take one row
            graph.reshape({port: openvino.PartialShape([1, *list(port.partial_shape)[1:]]) for port in graph.inputs})
            one_row = _CORE.compile_model(graph, "CPU", hints)
    return any_rows, one_row


def _is_one_row(inputs: Arrays) -> bool:
    return all(array.shape[:1] == (1,) for array in inputs.values())


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
    """What OpenVINO says, without the places in its source and what to read about it."""
    lines = (line.strip() for line in str(error).splitlines())
    return " ".join(line for line in lines if line and not line.startswith(("Exception from", "Check '", "To facil")))
