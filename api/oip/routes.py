"""/v2: the Open Inference Protocol, version 2, so that KServe's and Triton's clients work unchanged.

https://github.com/kserve/open-inference-protocol (``specification/protocol/inference_rest.md``), with Triton's binary
tensor data extension and the index of its model repository extension (triton-inference-server/server, docs/protocol).
"""

from importlib.metadata import version as version_of
from typing import Annotated, Any, Final

from fastapi import APIRouter, Header, Path, Request
from pydantic import Field
from starlette.responses import Response

from api import openapi
from api.http import bodies, problems, schemas
from api.http.current_request import time_limit
from api.oip.messages import DATATYPES, HEADER_LENGTH, read_request, write_answer
from api.oip.schemas import InferenceRequest, InferenceResponse, ModelMetadata, RepositoryEntry, State, TensorMetadata
from api.routes import status
from api.state import GatewayState
from api.threads import in_thread_if_large
from serving.contract import DISCRIMINATOR, MODELS, PROBABILITIES, ModelSpec, TensorSpec
from serving.tf_serving.client import VersionNotFoundError

BINARY: Final = "application/octet-stream"

_STATES: Final[dict[str, State]] = {
    "AVAILABLE": "READY",
    "START": "LOADING",
    "LOADING": "LOADING",
    "UNLOADING": "UNLOADING",
}

router = APIRouter(prefix=problems.OIP_PREFIX, route_class=bodies.RouteWithBody)

ModelInPath = Annotated[str, Path(description=f"One of {', '.join(MODELS)}.")]
Version = Annotated[schemas.Version | None, Field(description="The model's version.")]
"""In the path of a version's route; optional in the query of the others."""
HeaderLength = Annotated[
    str | None,
    Header(
        alias=HEADER_LENGTH,
        description="How many bytes of the body are JSON, where tensors come as bytes after it. 0: all of the body is"
        " the input.",
    ),
]

_MODEL_FAILURES: Final = (problems.MODEL_NOT_FOUND, problems.INVALID_REQUEST, *openapi.UPSTREAM)
_VERSION_FAILURES: Final = (problems.VERSION_NOT_FOUND, *_MODEL_FAILURES)

_INFER: Final[dict[str, Any]] = {
    "responses": {
        200: {
            "model": InferenceResponse,
            "description": "The outputs: as JSON, or as JSON with bytes after it.",
            "content": {BINARY: openapi.BINARY},
            "headers": openapi.MODEL_HEADERS
            | {HEADER_LENGTH: {"schema": {"type": "integer"}, "description": "How many bytes are JSON, if not all."}},
        },
        **openapi.failures(
            problems.MALFORMED_REQUEST, problems.BODY_TOO_LARGE, problems.UNSUPPORTED_MEDIA_TYPE, *_VERSION_FAILURES
        ),
    },
    "openapi_extra": openapi.body({bodies.JSON: openapi.schema_of(InferenceRequest), BINARY: openapi.BINARY}),
    "response_class": Response,
}


@router.get("", summary="The server (Open Inference Protocol)")
async def server() -> dict[str, str | list[str]]:
    """The server's name, version and extensions."""
    return {"name": "digitgan", "version": version_of("digitgan"), "extensions": ["binary_tensor_data"]}


@router.get("/health/live", summary="Is the process alive?", responses=openapi.failures(problems.INTERNAL_ERROR))
async def live() -> dict[str, bool]:
    """Depends on nothing else."""
    return {"live": True}


@router.get(
    "/health/ready",
    summary="Are all models ready?",
    responses=openapi.failures(problems.INTERNAL_ERROR, problems.NOT_READY),
)
async def ready(request: Request) -> dict[str, bool]:
    """As `GET /healthz/ready`."""
    await status.ready(request)
    return {"live": True, "ready": True}


@router.post(
    "/repository/index", summary="The models and their versions", responses=openapi.failures(*openapi.UPSTREAM)
)
async def index(request: Request) -> list[RepositoryEntry]:
    """Triton's list of models. Its filter, `ready`, is ignored."""
    entries = []
    for model in MODELS:
        for one in (await _status(request, model)).versions:
            reason = f"{one.error.code}: {one.error.message}" if one.error else ""
            state = _STATES.get(one.state, "UNAVAILABLE")
            entries.append(RepositoryEntry(name=model, version=str(one.version), state=state, reason=reason))
    return entries


@router.get("/models/{model}", summary="What a model takes and gives", responses=openapi.failures(*_MODEL_FAILURES))
@router.get(
    "/models/{model}/versions/{version}",
    summary="What a model's version takes and gives",
    responses=openapi.failures(*_VERSION_FAILURES),
)
async def metadata(request: Request, model: ModelInPath, version: Version = None) -> ModelMetadata:
    """Its inputs, its outputs, and its AVAILABLE versions. All versions take and give the same: the contract."""
    spec = _spec(model)
    versions = (await _status(request, model, version)).versions
    return ModelMetadata(
        name=model,
        versions=[str(one.version) for one in versions if one.state == "AVAILABLE"],
        platform="tensorflow_savedmodel",
        inputs=[_metadata(spec.input)],
        outputs=[_metadata(output) for output in spec.outputs],
    )


@router.get(
    "/models/{model}/ready",
    summary="Is a model ready?",
    responses=openapi.failures(problems.NOT_READY, *_MODEL_FAILURES),
)
@router.get(
    "/models/{model}/versions/{version}/ready",
    summary="Is a model's version ready?",
    responses=openapi.failures(problems.NOT_READY, *_VERSION_FAILURES),
)
async def model_ready(request: Request, model: ModelInPath, version: Version = None) -> dict[str, str | bool]:
    """Ready means that the version is AVAILABLE; without a version any of them, or with `DIGITGAN_VERSION_LABEL` the
    one with this label.
    """
    _spec(model)
    found = await _status(request, model, version)
    available = found.serving is not None if version is None else found.versions[0].state == "AVAILABLE"
    if not available:
        detail = f"{model if version is None else f'version {version} of {model}'} is not AVAILABLE"
        raise problems.ProblemError(problems.NOT_READY, detail, errors=[{"model": model, "detail": detail}])
    return {"name": model, "ready": True}


@router.post("/models/{model}/infer", summary="Run a model", **_INFER)
@router.post("/models/{model}/versions/{version}/infer", summary="Run a model's version", **_INFER)
async def infer(
    request: Request, model: ModelInPath, version: Version = None, header_length: HeaderLength = None
) -> Response:
    """Runs the version; without a version the newest."""
    state: GatewayState = request.state.gateway
    spec = _spec(model)
    body = await request.body()
    parsed = await in_thread_if_large(
        len(body), lambda: read_request(body, header_length, spec, state.settings.max_images)
    )
    with state.admission.images(request, len(parsed.rows), "/inputs"):
        async with time_limit(request):
            prediction = await state.inference.predict_whole(model, parsed.rows, version=version)
            if model == DISCRIMINATOR:
                real = (prediction.outputs[PROBABILITIES] > 0.5).tolist()
                state.metrics.count_scores(prediction.version, ["real" if one else "fake" for one in real])
            size = sum(prediction.outputs[name].nbytes for name in parsed.outputs)
            content, headers = await in_thread_if_large(size, lambda: write_answer(prediction, parsed))
    return Response(content, 200, headers | {"X-Model": model, "X-Model-Version": str(prediction.version)})


def _spec(model: str) -> ModelSpec:
    if model not in MODELS:
        raise problems.ProblemError(problems.MODEL_NOT_FOUND, f"the models are {', '.join(MODELS)}")
    return MODELS[model]


def _metadata(spec: TensorSpec) -> TensorMetadata:
    return TensorMetadata(name=spec.name, datatype=DATATYPES[spec.dtype], shape=[-1, *spec.shape])


async def _status(request: Request, model: str, version: int | None = None) -> schemas.Model:
    """Returns what is known of ``model``, of all versions or the named one. Raises VersionNotFoundError."""
    state: GatewayState = request.state.gateway
    found = await status.model_status(state, model, state.settings.request_timeout_s)
    if version is not None:
        found.versions = [one for one in found.versions if one.version == version]
        if not found.versions:
            raise VersionNotFoundError(model, version)
    return found
