"""POST /dataset: labelled digits in the order of their seeds, balanced over the classes and read with confidence."""

from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any, Final

import numpy as np
from fastapi import APIRouter, Request
from starlette.responses import Response

from api import answers, bodies, images, openapi, problems
from api.admission import admit, streamed
from api.bodies import JSON
from api.deadlines import limit_of
from api.dependencies import StateDep
from api.images import NPY
from api.inference import MAX_BATCH
from api.keys import charge
from api.negotiation import negotiate
from api.problems import at_pointer, invalid
from api.schemas import DatasetRequest
from api.walk import Walk, Wish
from api.zipstream import ZIP, ZipStream
from serving.contract import CLASSIFIER, DISCRIMINATOR, GENERATOR
from serving.dataset import Records, quotas, record

router = APIRouter()

FORMATS: Final = (ZIP, NPY)

LABELS_HEAD: Final = b"file,seed,digit,confidence,logit\n"

_HEADERS: Final[dict[str, Any]] = openapi.MODEL_HEADERS | {
    "X-Classifier-Version": {"schema": {"type": "integer"}, "description": "Of the classifier that labelled."},
    "X-Discriminator-Version": {"schema": {"type": "integer"}, "description": "Of the discriminator that scored."},
}


@router.post(
    "/dataset",
    summary="Collect labelled digits",
    description="Looks at the digits of the seeds `first_seed`, `first_seed` + 1, … in turn and answers the first"
    " `count` that the classifier reads with confidence and that the balance has room for. The same versions and"
    " request give the same digits. As a zip of PNGs in a folder for each digit, with `labels.csv` last; or as an"
    " `.npy` array of records: `seed` uint64, `digit` uint8, `confidence` and `logit` float32, `pixels` uint8"
    " [28·scale, 28·scale]. Both are streamed.",
    responses={
        200: {
            "description": "The digits, in the order of their seeds.",
            "content": {ZIP: openapi.binary(), NPY: openapi.binary()},
            "headers": _HEADERS,
        },
        **openapi.failures(
            *openapi.WITH_BODY,
            problems.VERSION_NOT_FOUND,
            *openapi.UPSTREAM,
        ),
    },
    openapi_extra=openapi.body({JSON: openapi.schema_of(DatasetRequest)}),
    response_class=Response,
)
async def dataset(
    request: Request,
    state: StateDep,
) -> Response:
    media_type = negotiate(", ".join(request.headers.getlist("accept")), FORMATS)
    bodies.media_type(request, (JSON,))
    wanted = await bodies.read_json(request, DatasetRequest)
    if wanted.count > state.settings.max_stream_images:
        most = state.settings.max_stream_images
        raise invalid(at_pointer("/count", f"{wanted.count} images; at most {most} are made as {media_type}"))
    admit(request, max(wanted.count, MAX_BATCH))  # seeds are looked at in batches, however few digits are wanted
    charge(request, wanted.count, "/count")
    limit_s = limit_of(request, state.settings.request_timeout_s)
    # Each batch has the time of a request, as in every stream.
    walk = Walk(_wish(wanted), state.inference, state.metrics, lambda: limit_s)
    await walk.open(wanted.version, state.indexes)
    parts = walk.parts()
    all_parts = streamed(request, await anext(parts), parts)
    headers = {
        "X-Model": GENERATOR,
        "X-Model-Version": str(walk.versions[GENERATOR]),
        "X-Classifier-Version": str(walk.versions[CLASSIFIER]),
        "X-Discriminator-Version": str(walk.versions[DISCRIMINATOR]),
        "Vary": "Accept",
        "Content-Disposition": f'attachment; filename="dataset.{"zip" if media_type == ZIP else "npy"}"',
    }
    if media_type == ZIP:
        return answers.Stream(_as_zip(all_parts, wanted.count, wanted.scale), (parts, all_parts), headers, ZIP)
    head = images.npy_records_header(wanted.count, record(wanted.scale))
    headers["Content-Length"] = str(len(head) + wanted.count * record(wanted.scale).itemsize)
    return answers.Stream(_as_npy(all_parts, head, wanted.scale), (parts, all_parts), headers, NPY)


def _wish(wanted: DatasetRequest) -> Wish:
    of_each = wanted.quotas if wanted.quotas is not None else quotas(wanted.count, wanted.balance)
    return Wish(
        count=wanted.count,
        quotas=None if of_each is None else tuple(min(one, wanted.count) for one in of_each),
        confidence_floor=wanted.confidence_floor,
        logit_floor=-np.inf if wanted.logit_floor is None else wanted.logit_floor,
        first_seed=wanted.first_seed,
    )


async def _as_npy(parts: AsyncIterator[Records], head: bytes, scale: int) -> AsyncGenerator[bytes]:
    """Yields an ``.npy`` file of records."""
    yield head
    async for part in parts:
        for digits in answers.chunks(part, scale):
            enlarged = np.empty(len(digits), record(scale))
            for name in ("seed", "digit", "confidence", "logit"):
                enlarged[name] = digits[name]
            enlarged["pixels"] = images.enlarge(digits["pixels"], scale)
            yield enlarged.tobytes()


async def _as_zip(parts: AsyncIterator[Records], count: int, scale: int) -> AsyncGenerator[bytes]:
    """Yields a zip with a PNG for each digit, in the folder of its digit, and a table of them as its last file."""
    archive = ZipStream()
    width = len(str(count - 1))
    table = bytearray(LABELS_HEAD)
    done = 0

    def entries(digits: Records, start: int) -> bytes:
        files = []
        for place, one in enumerate(digits, start):
            name = f"{one['digit']}/{place:0{width}}-{one['seed']}.png"
            files.append(archive.add(name, images.png(one["pixels"], scale)))
            # str of a float32 is the shortest that reads back as the same float32
            table.extend(f"{name},{one['seed']},{one['digit']},{one['confidence']},{one['logit']}\n".encode())
        return b"".join(files)

    async for part in parts:
        for digits in answers.chunks(part, scale):
            yield await answers.encode(digits["pixels"].size * scale**2, entries, digits, done)
            done += len(digits)
    yield archive.add(answers.LABELS_FILE, bytes(table))
    yield archive.finish()
