"""SavedModels that OpenVINO runs, on the CPU and in float32.

model = load(Path("models/generator/1"))
images = model.run("serving_default", {"noise": noise})["images"]
"""

import gc
import tempfile
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any, Final

import numpy as np
from google.protobuf import text_format
from google.protobuf.message import DecodeError
from grpc import StatusCode
from numpy.typing import NDArray

from serving import apis
from serving.contract import SIGNATURE
from serving.model_server.errors import ServingError
from serving.model_server.signature import METHODS, Arrays, Signature
from serving.quiet import without_openvino_converter

with without_openvino_converter():
    import openvino
    from openvino import opset13 as ops

SERVING_TAG: Final = "serve"
_VARIABLES: Final = "variables"
_UNINITIALIZED: Final = "is not initialized"
"""OpenVINO's words for a variable that has no value."""
_STRING: Final = 7
"""TensorFlow's number of the dtype."""


class SavedModel:
    """A SavedModel in memory. Several threads may call ``run`` at once."""

    def __init__(
        self, signature_defs: apis.SignatureDefMap, programs: Mapping[str, "_Program | _WithoutVariables"]
    ) -> None:
        self.signature_defs = signature_defs
        self.signatures = {
            name: Signature.from_proto(name, proto) for name, proto in signature_defs.signature_def.items()
        }
        self._programs = dict(programs)

    def run(self, signature_name: str, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """Returns all outputs of a signature, for inputs of its names and dtypes.

        Raises ServingError: INVALID_ARGUMENT for a shape that an operation can't take, FAILED_PRECONDITION where the
        model's variables are missing.
        """
        return self._programs[signature_name].run(inputs)

    def close(self) -> None:
        """Frees the model's memory. No ``run`` may follow."""
        self._programs.clear()
        gc.collect()


class _Program:
    """One signature. Where it leaves an input's rank open, it is compiled for each rank that comes."""

    def __init__(self, model: Any, signature: Signature, hints: Mapping[str, Any]) -> None:
        self._hints = hints
        self._outputs = signature.outputs
        self._declared = {name: signature.shapes[name] for name in signature.dtypes}
        self._compiling = Lock()
        self._compiled: dict[tuple[int, ...], _Requests] = {}
        ranks = tuple(len(shape) for shape in self._declared.values() if shape is not None)
        self._model: Any = None  # what is compiled for good needs no more memory
        if len(ranks) == len(self._declared):
            self._compiled[ranks] = self._compile(model)
        else:
            self._model = model

    def run(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        try:
            with self._requests(tuple(inputs[name].ndim for name in self._declared)).one() as request:
                found = request.infer(dict(inputs), share_inputs=True)
                return {name: found[name] for name in self._outputs}
        except RuntimeError as error:
            raise ServingError(StatusCode.INVALID_ARGUMENT, _message(error)) from error

    def _requests(self, ranks: tuple[int, ...]) -> "_Requests":
        if ranks not in self._compiled:
            with self._compiling:
                if ranks not in self._compiled:
                    model = self._model.clone()
                    given = zip(self._declared.items(), ranks, strict=True)
                    model.reshape(
                        {
                            name: openvino.PartialShape(list(shape) if shape is not None else [-1] * rank)
                            for (name, shape), rank in given
                        }
                    )
                    self._compiled[ranks] = self._compile(model)
        return self._compiled[ranks]

    def _compile(self, model: Any) -> "_Requests":
        return _Requests(_CORE.compile_model(model, "CPU", self._hints))


class _WithoutVariables:
    """A signature that needs variables, in a directory without any. TensorFlow Serving finds that out at a request."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def run(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        raise ServingError(
            StatusCode.FAILED_PRECONDITION, f"Could not find variable values: {self._path / _VARIABLES} is missing"
        )


class _Requests:
    """OpenVINO's requests for one compiled model: as many as run at a time, used again."""

    def __init__(self, compiled: Any) -> None:
        self._compiled = compiled
        self._free: deque[Any] = deque()

    @contextmanager
    def one(self) -> Iterator[Any]:
        try:
            request = self._free.pop()
        except IndexError:
            request = self._compiled.create_infer_request()
        yield request
        self._free.append(request)


_CORE: Final = openvino.Core()


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
    programs: dict[str, _Program | _WithoutVariables] = {}
    for name, proto in meta_graph.signature_def.items():
        signature_defs.signature_def[name].CopyFrom(proto)
        signature = Signature.from_proto(name, proto)
        if signature.method_name in METHODS:
            if any(info.dtype == _STRING for info in (*proto.inputs.values(), *proto.outputs.values())):
                raise _unsupported(path, name, "it has strings")
            try:
                programs[name] = _Program(_converted(path, meta_graph, name), signature, hints)
            except RuntimeError as error:
                if _UNINITIALIZED not in str(error) or (path / _VARIABLES / "variables.index").exists():
                    raise _load_error(path, name, error) from error
                programs[name] = _WithoutVariables(path)
    return SavedModel(signature_defs, programs)


def _read(path: Path) -> apis.MetaGraphDef:
    binary, text = path / "saved_model.pb", path / "saved_model.pbtxt"
    try:
        if binary.is_file():
            saved = apis.SavedModel.FromString(binary.read_bytes())
        elif text.is_file():
            saved = text_format.Parse(text.read_text(encoding="utf-8"), apis.SavedModel())
        else:
            raise ServingError(StatusCode.NOT_FOUND, f"no {binary.name} or {text.name} in {path}")
    except (DecodeError, text_format.ParseError, UnicodeDecodeError) as error:
        raise ServingError(StatusCode.DATA_LOSS, f"the graph in {path} can't be parsed: {error}") from error
    for meta_graph in saved.meta_graphs:
        if SERVING_TAG in meta_graph.meta_info_def.tags:
            return meta_graph
    raise ServingError(StatusCode.NOT_FOUND, f'no graph with the tag "{SERVING_TAG}" in {path}')


def _converted(path: Path, meta_graph: apis.MetaGraphDef, name: str) -> Any:
    """Returns a signature as OpenVINO's own graph."""
    with tempfile.TemporaryDirectory() as directory:
        target = Path(directory)
        (target / "saved_model.pb").write_bytes(_single_signature(meta_graph, name).SerializeToString())
        if (path / _VARIABLES).is_dir():
            (target / _VARIABLES).symlink_to((path / _VARIABLES).absolute())
        model = _CORE.read_model(target)
    for node in model.get_ordered_ops():
        if node.get_type_name() == "MatMul":
            _keep_stack(node)
    return model


def _single_signature(meta_graph: apis.MetaGraphDef, name: str) -> apis.SavedModel:
    """Returns a SavedModel with the signature ``name`` as ``serving_default``, the only one that OpenVINO reads."""
    saved = apis.SavedModel(saved_model_schema_version=1)
    target = saved.meta_graphs.add()
    target.meta_info_def.CopyFrom(meta_graph.meta_info_def)
    target.graph_def.CopyFrom(meta_graph.graph_def)
    target.saver_def.CopyFrom(meta_graph.saver_def)  # its nodes tell which variable has which name in the checkpoint
    target.signature_def[SIGNATURE].CopyFrom(meta_graph.signature_def[name])
    return saved


def _keep_stack(product: Any) -> None:
    """Makes a product of one matrix and a stack of them, which OpenVINO 2026.4 takes for one of two matrices, a product
    of two stacks, with a dimension of 1 in between.
    """
    left, right = product.input_value(0), product.input_value(1)
    ranks = [each.get_partial_shape().rank for each in (left, right)]
    if any(rank.is_dynamic for rank in ranks) or ranks[0].get_length() >= ranks[1].get_length():
        return
    missing, between = ranks[1].get_length() + 1 - ranks[0].get_length(), ranks[1].get_length() - 2
    attributes = product.get_attributes()
    stacks = ops.matmul(
        ops.unsqueeze(left, np.arange(missing)),
        ops.unsqueeze(right, np.array([between])),
        attributes["transpose_a"],
        attributes["transpose_b"],
    )
    result = ops.squeeze(stacks, np.array([between])).output(0)
    for user in product.output(0).get_target_inputs():
        user.replace_source_output(result)


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
