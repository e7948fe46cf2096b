"""POST /dataset: labelled digits in the order of their seeds, balanced over the classes and read with confidence."""

from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any, Final

import numpy as np
from fastapi import APIRouter, Request
from starlette.responses import Response

from api import openapi
from api.digits.seed_scan import SeedScan
from api.formats import images
from api.formats.content import check_size
from api.formats.streams import ZIP, Files, Stream, as_zip, chunks
from api.http import bodies
from api.http.current_request import time_limit
from api.http.schemas import DatasetRequest
from api.middleware.keys import charge_made
from api.state import GatewayState
from api.upstream.inference import SLICE_ROWS, retry_on_swap
from serving.contract import CLASSIFIER, DISCRIMINATOR, GENERATOR
from serving.dataset import Records, record

router = APIRouter(route_class=bodies.RouteWithBody)

FORMATS: Final = (ZIP, images.NPY)

_HEADERS: Final[dict[str, Any]] = {
    **openapi.MODEL_HEADERS,
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
    **openapi.makes_images(DatasetRequest, FORMATS, "The digits, in the order of their seeds.", headers=_HEADERS),
)
async def dataset(request: Request) -> Response:
    state: GatewayState = request.state.gateway
    media_type = bodies.negotiate(request, FORMATS)
    body = await bodies.read_json(request, DatasetRequest)
    settings = state.settings
    check_size(media_type, body.count, settings.max_stream_images, body.scale, settings.max_pixels, ("count",))
    scanned = 0

    def on_scanned(images: int) -> None:
        nonlocal scanned
        scanned += images
        charge_made(request, min(images, max(0, scanned - body.count)))

    async def attempt() -> tuple[SeedScan, Records, AsyncGenerator[Records]]:
        scan = SeedScan(body, state.inference)
        parts = scan.parts(on_scanned)
        while True:
            async with time_limit(request):  # for each block, as in the stream
                first = await anext(parts)
            if len(first):
                return scan, first, parts

    count = max(body.count, SLICE_ROWS)  # seeds are scanned in batches, however few digits the dataset has
    with state.admission.images(request, count, "/count", charged=body.count):
        scan, first, parts = await retry_on_swap(GENERATOR, body.version, attempt)
    all_parts = state.admission.stream(request, count, first, parts)
    headers = {
        "X-Model": GENERATOR,
        "X-Model-Version": str(scan.versions[GENERATOR]),
        "X-Classifier-Version": str(scan.versions[CLASSIFIER]),
        "X-Discriminator-Version": str(scan.versions[DISCRIMINATOR]),
        "Vary": "Accept",
        "Content-Disposition": f'attachment; filename="dataset.{"zip" if media_type == ZIP else "npy"}"',
    }
    if media_type == ZIP:
        return Stream(_as_zip(all_parts, body.count, body.scale), (parts, all_parts), headers, ZIP)
    head = images.npy_header(record(body.scale), body.count)
    headers["Content-Length"] = str(len(head) + body.count * record(body.scale).itemsize)
    return Stream(_as_npy(all_parts, head, body.scale), (parts, all_parts), headers, images.NPY)


async def _as_npy(parts: AsyncIterator[Records], head: bytes, scale: int) -> AsyncGenerator[bytes]:
    yield head
    async for part in parts:
        for chunk in chunks(len(part), scale):
            digits = part[chunk]
            enlarged = np.empty(len(digits), record(scale))
            for name in ("seed", "digit", "confidence", "logit"):
                enlarged[name] = digits[name]
            enlarged["pixels"] = images.enlarge(digits["pixels"], scale)
            yield enlarged.tobytes()


def _as_zip(parts: AsyncIterator[Records], count: int, scale: int) -> AsyncGenerator[bytes]:
    """Yields a zip with a PNG for each digit, in the folder of its digit, and a table of them as its last file."""
    width = len(str(count - 1))

    def files(digits: Records, start: int) -> Files:
        names = [f"{one['digit']}/{place:0{width}}-{one['seed']}.png" for place, one in enumerate(digits, start)]
        # The str of a float32 is the shortest that reads back as the same float32.
        lines = [
            f"{name},{one['seed']},{one['digit']},{one['confidence']},{one['logit']}\n"
            for name, one in zip(names, digits, strict=True)
        ]
        return names, digits["pixels"], lines

    return as_zip(parts, files, "file,seed,digit,confidence,logit\n", scale)
