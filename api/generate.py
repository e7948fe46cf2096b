"""POST /generate: digits from seeds, from noise, or from seeds that the server chooses."""

from typing import Final

from fastapi import APIRouter, Request
from starlette.responses import Response

from api import answers, bodies, images, openapi, problems, schemas
from api.admission import admit, streamed
from api.bodies import JSON
from api.deadlines import Deadline, limit_of
from api.dependencies import StateDep
from api.images import NPY, PNG
from api.keys import charge
from api.making import Digits, Maker
from api.negotiation import negotiate
from api.problems import at_pointer, invalid
from api.schemas import GenerateRequest
from api.sources import STREAMED, Pick, SeedSource, Source, source_of
from api.zipstream import ZIP
from serving.contract import IMAGE_SIDE

router = APIRouter()

FORMATS: Final = (JSON, PNG, ZIP, NPY)
LABELLED: Final = (JSON, ZIP)
"""The formats that have room for labels."""
MOST_SEEDS_IN_HEADER: Final = 256
"""Seeds that do not follow each other are listed up to here: 1.5 KB, where proxies take 4 to 8 KB of headers."""


@router.post(
    "/generate",
    summary="Make digits",
    description="Digits from seeds, from noise vectors, or from seeds that the server chooses, in the format that"
    " `Accept` prefers: JSON with a PNG for each digit, one PNG (a sheet if there are several digits), a zip of"
    " PNGs, or an `.npy` array, uint8 [N, 28·scale, 28·scale]. Zip and npy are streamed. With `digit` and `curated`"
    " only digits of a kind are made; with `labels` the answer says which digit each image reads as.",
    responses={
        200: {
            "model": schemas.GenerateResponse,
            "description": "The digits, in the order asked for.",
            "content": {PNG: openapi.binary(), ZIP: openapi.binary(), NPY: openapi.binary()},
            "headers": openapi.MODEL_HEADERS
            | {
                "X-Seeds": {
                    "schema": {"type": "string", "pattern": "^[0-9]+(-[0-9]+|(,[0-9]+)*)$"},
                    "description": "With `count`: the first and the last of the seeds, which follow each other; with"
                    f" `digit` or `curated` all of them, up to {MOST_SEEDS_IN_HEADER}.",
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
    media_type = negotiate(", ".join(request.headers.getlist("accept")), FORMATS)
    bodies.media_type(request, (JSON,))
    wanted = await bodies.read_json(request, GenerateRequest)
    if wanted.labels and media_type not in LABELLED:
        raise invalid(at_pointer("/labels", f"{media_type} has no room for labels; {' and '.join(LABELLED)} have"))
    plan = source_of(wanted, state.settings, media_type)
    admit(request, len(plan))
    charge(request, len(plan), f"/{wanted.source}")
    in_parts = media_type in STREAMED
    pixels = len(plan) * (IMAGE_SIDE * wanted.scale) ** 2
    limit_s = limit_of(request, state.settings.request_timeout_s)
    deadline = Deadline(limit_s)
    maker = Maker(
        state.inference,
        state.indexes,
        state.metrics,
        labelled=media_type in LABELLED and (wanted.labels or isinstance(plan, Pick)),
        time_left=(lambda: limit_s) if in_parts else deadline.for_calls(pixels),
    )
    if in_parts:
        return await _streamed(request, maker, plan, wanted, media_type)
    source, digits = await maker.complete(plan, wanted.version)
    encoded = _encoded(digits, source, wanted, media_type)
    if answers.is_quick(pixels):
        content = await encoded
    else:
        async with deadline.making_the_answer():
            content = await encoded
    return Response(content, 200, _headers(digits, source), media_type)


async def _encoded(digits: Digits, source: Source, wanted: GenerateRequest, media_type: str) -> bytes:
    size = digits.pixels.size * wanted.scale**2
    if media_type == PNG:
        return await answers.encode(size, images.png, images.sheet(digits.pixels), wanted.scale)
    return await answers.encode(size, answers.as_json, digits, source, wanted.scale)


def _headers(digits: Digits, source: Source) -> dict[str, str]:
    headers = {**digits.headers, "Vary": "Accept"}
    if isinstance(source, SeedSource) and source.chosen:
        if isinstance(source.seeds, range):
            headers["X-Seeds"] = f"{source.seeds[0]}-{source.seeds[-1]}"
        elif len(source) <= MOST_SEEDS_IN_HEADER:
            headers["X-Seeds"] = ",".join(map(str, source.seeds))
    return headers


async def _streamed(
    request: Request, maker: Maker, plan: Source | Pick, wanted: GenerateRequest, media_type: str
) -> Response:
    """Returns an answer that is made while it is sent.

    The first batch is waited for, and its labels too, so that most failures are problem documents. A later one (the
    model server gone, the version withdrawn) can only break off the answer, which its length, or the zip's missing
    end, tells.
    """
    run = await maker.start(plan, wanted.version)
    parts = maker.parts(run)
    first = await anext(parts)
    all_parts = streamed(request, first, parts)
    headers = _headers(first, run.source)
    if media_type == ZIP:
        headers["Content-Disposition"] = 'attachment; filename="digits.zip"'
        body = answers.as_zip(all_parts, run.source, wanted.scale)
        return answers.Stream(body, (parts, all_parts), headers, ZIP)
    headers["Content-Disposition"] = 'attachment; filename="digits.npy"'
    headers["Content-Length"] = str(answers.npy_length(len(run.source), wanted.scale))
    body = answers.as_npy(all_parts, len(run.source), wanted.scale)
    return answers.Stream(body, (parts, all_parts), headers, NPY)
