"""POST /generate: digits from seeds, from noise, or from seeds that the server chooses."""

from typing import Final

from fastapi import APIRouter, Request
from starlette.responses import Response

from api import openapi
from api.digits import making
from api.digits.sources import IndexedSeeds, rows_of
from api.formats import answers
from api.formats.content import FORMATS, check_size
from api.http import bodies, problems, schemas
from api.http.bodies import JSON
from api.http.deadlines import limit_of, time_limit
from api.http.negotiation import negotiate
from api.http.problems import at_pointer, invalid
from api.http.schemas import GenerateRequest
from api.middleware.keys import charge
from api.state import StateDep
from api.upstream.coalescing import Rows
from serving.contract import IMAGE_SIDE

router = APIRouter()

OFFERED: Final = tuple(name for name, form in FORMATS.items() if not form.animated)
LABELLED: Final = tuple(name for name, form in FORMATS.items() if form.has_labels)
MAX_SEEDS_IN_HEADER: Final = 256
"""Seeds that do not follow each other are listed up to here: 1.5 KB, where proxies take 4 to 8 KB of headers."""


@router.post(
    "/generate",
    summary="Make digits",
    description="Digits from seeds, from noise vectors, or from seeds that the server chooses, in the format that"
    " `Accept` prefers: JSON with a PNG for each digit, one PNG (a sheet if there are several digits), a zip of"
    " PNGs, or an `.npy` array, uint8 [N, 28·scale, 28·scale]. Zip and npy are streamed. With `digit` and `curated`"
    " only digits of a kind are generated; with `labels` the answer has the digit that each image shows.",
    responses={
        200: {
            "model": schemas.GenerateResponse,
            "description": "The digits, in the order of the request.",
            "content": {media_type: openapi.binary() for media_type in OFFERED if media_type != JSON},
            "headers": openapi.MODEL_HEADERS
            | {
                "X-Seeds": {
                    "schema": {"type": "string", "pattern": "^[0-9]+(-[0-9]+|(,[0-9]+)*)$"},
                    "description": "With `count`: the first and the last of the seeds, which follow each other; with"
                    f" `digit` or `curated` all of them, up to {MAX_SEEDS_IN_HEADER}.",
                }
            },
        },
        **openapi.failures(
            *openapi.WITH_BODY,
            problems.VERSION_NOT_FOUND,
            problems.NO_SEED_INDEX,
            *openapi.UPSTREAM,
        ),
    },
    openapi_extra=openapi.body({JSON: openapi.schema_of(GenerateRequest)}),
    response_class=Response,
)
async def generate(
    request: Request,
    state: StateDep,
) -> Response:
    media_type = negotiate(request, OFFERED)
    form = FORMATS[media_type]
    bodies.media_type(request, (JSON,))
    body = await bodies.read_json(request, GenerateRequest)
    if body.labels and not form.has_labels:
        raise invalid(at_pointer("/labels", f"{media_type} has no room for labels; {' and '.join(LABELLED)} have"))
    count = len(body.seeds) or len(body.noise) or body.count
    settings = state.settings
    most = settings.max_stream_images if form.batches and not body.noise else settings.max_images
    check_size(media_type, count, most, body.scale, settings.max_pixels, (body.source,))
    query = rows_of(body)
    with state.admission.images(request, count):
        charge(request, count, f"/{body.source}")
        labelled = form.has_labels and (body.labels or isinstance(query, IndexedSeeds))
        limit_s = limit_of(request, settings.request_timeout_s)
        if form.batches:
            # Each batch has the time of a request. The first one is awaited, with its labels, so that most failures
            # are problem documents. A later failure can only break off the answer, and its length or the missing end
            # of the zip shows that.
            async with time_limit(limit_s):
                generation = await making.start(state, query, body.version, labelled=labelled)
            batches = state.admission.stream(count, limit_s, generation.first, generation.rest)
            headers = generation.first.headers | _headers(body, generation.rows)
            headers["Content-Disposition"] = f'attachment; filename="digits.{form.suffix}"'
            if form.length:
                headers["Content-Length"] = str(form.length(len(generation.rows), body.scale))
            content = form.batches(batches, len(generation.rows), body.scale)
            return answers.Stream(content, (generation.rest, batches), headers, media_type)
        pixels = count * (IMAGE_SIDE * body.scale) ** 2
        async with time_limit(limit_s):
            rows, digits = await making.generate(state, query, body.version, labelled=labelled)
            encoded = await answers.encode(pixels, form.encode, digits, body.scale)
        return Response(encoded, 200, digits.headers | _headers(body, rows), media_type)


def _headers(body: GenerateRequest, rows: Rows) -> dict[str, str]:
    """Returns the headers about the seeds that the service chose."""
    headers = {"Vary": "Accept"}
    if isinstance(rows, range):
        headers["X-Seeds"] = f"{rows[0]}-{rows[-1]}"
    elif body.count and len(rows) <= MAX_SEEDS_IN_HEADER:
        headers["X-Seeds"] = ",".join(map(str, rows))
    return headers
