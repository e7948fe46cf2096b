"""Fuzzers of everything that reads what strangers send: no crash, no hang, and no error but the promised one.

A few seconds as part of the tests; ``make fuzz`` goes on for ``FUZZ_MINUTES`` (10) in all, with new examples each time.
"""

import asyncio
import contextlib
import json
import os
import struct
import time
import zlib
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final, get_args

import numpy as np
import orjson
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from starlette.requests import Request
from starlette.types import Message

from api.digits.fit import FORMATS, Fit, ImageError, into_mnist, read_digit
from api.digits.ink import find_ink
from api.digits.making import source_of
from api.http.bodies import read_json
from api.http.negotiation import negotiate
from api.http.problems import ProblemError, problem_response
from api.http.schemas import GenerateRequest, ScoreRequest
from api.middleware.keys import ApiKey, CheckKeys, hash_of, new_key
from api.oip.messages import read_request
from api.settings import load_settings
from api.upstream.coalescing import MAX_BATCH
from api.upstream.inference import joined
from serving.contract import MODELS
from tests.support import pictures

MINUTES: Final = float(os.environ.get("FUZZ_MINUTES", "0"))
TARGETS: Final = 6
EXAMPLES: Final = 2000 if MINUTES else 60
HANGING: Final = timedelta(seconds=60)
"""No example comes near it, even on a busy machine."""


def fuzz(**inputs: st.SearchStrategy[Any]) -> Callable[[Callable[..., None]], Callable[[], None]]:
    """Runs a check on examples: EXAMPLES of them, or as many as its share of MINUTES has time for."""

    def decorate(check: Callable[..., None]) -> Callable[[], None]:
        examples = 0

        @settings(max_examples=EXAMPLES, deadline=HANGING, database=None, suppress_health_check=list(HealthCheck))
        @given(**inputs)
        def run(**example: Any) -> None:
            nonlocal examples
            examples += 1
            check(**example)

        def test() -> None:
            end = time.monotonic() + MINUTES * 60 / TARGETS
            run()
            while time.monotonic() < end:
                run()
            print(f"{check.__name__}: {examples:,} examples")

        return test

    return decorate


def saved(mode: str, kind: str, side: int, **options: Any) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return pictures.saved(Image.linear_gradient("L").resize((side, side)).convert(mode), kind, exif=exif, **options)


WHOLE: Final = [
    *(saved(mode, "PNG", side) for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16") for side in (28, 40)),
    *(saved(mode, "JPEG", 40, progressive=slow) for mode in ("L", "RGB", "CMYK") for slow in (False, True)),
    *(saved(mode, "WEBP", 40, lossless=lossless) for mode in ("L", "RGBA") for lossless in (False, True)),
    saved("L", "PNG", 28, save_all=True, append_images=[Image.new("L", (28, 28), 9)]),
]
"""A good file of each kind, to be damaged."""


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A file with bytes changed, cut out, doubled and put in."""
    file = bytearray(draw(st.sampled_from(WHOLE)))
    for _ in range(draw(st.integers(0, 8))):
        place = draw(st.integers(0, len(file)))
        length = draw(st.sampled_from((1, 2, 4, 16, 200)))
        match draw(st.integers(0, 3)):
            case 0:
                file[place : place + length] = draw(st.binary(min_size=length, max_size=length))
            case 1:
                del file[place : place + length]
            case 2:
                file[place:place] = file[place : place + length]
            case 3:
                file[place : place + 4] = struct.pack(
                    draw(st.sampled_from("<>")) + "I", draw(st.integers(0, 2**32 - 1))
                )
    return bytes(file)


@st.composite
def chunked(draw: st.DrawFn) -> bytes:
    """A PNG of right checksums and wrong everything else."""
    kinds = st.sampled_from((b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"iCCP", b"zTXt", b"iTXt", b"eXIf", b"acTL"))
    header = struct.pack(
        ">2I5B",
        draw(st.integers(0, 300)),
        draw(st.integers(0, 300)),
        draw(st.sampled_from((1, 2, 4, 8, 16, 3))),
        draw(st.integers(0, 7)),
        *(draw(st.integers(0, 1)) for _ in range(3)),
    )
    parts = [(b"IHDR", header), *draw(st.lists(st.tuples(kinds, st.binary(max_size=60)), max_size=8))]
    parts += [(b"IDAT", zlib.compress(draw(st.binary(max_size=3000)))), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(pictures.chunk(*part) for part in parts)


FILE = st.one_of(damaged(), chunked(), st.binary(max_size=200))


@fuzz(file=FILE, raw=st.booleans(), fit=st.sampled_from(get_args(Fit)))
def test_the_image_decoder(file: bytes, raw: bool, fit: Fit) -> None:
    try:
        digit = read_digit(file, max_pixels=10**6, formats=("PNG",) if raw else FORMATS, fit=fit)
    except ImageError:
        return
    assert digit.pixels.shape == (28, 28)
    assert digit.pixels.dtype == np.uint8


@fuzz(
    shape=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    values=st.lists(st.integers(0, 255), min_size=1, max_size=200),
    seed=st.integers(0, 2**32),
    channels=st.sampled_from(((), (3,))),
)
def test_the_fitting(shape: tuple[int, int], values: list[int], seed: int, channels: tuple[int, ...]) -> None:
    page = np.random.default_rng(seed).choice(np.array(values, np.uint8), shape + channels)
    ink = find_ink(Image.fromarray(page))
    if ink is None:
        return
    left, top, right, bottom = ink.box
    assert 0 <= left < right <= shape[1]
    assert 0 <= top < bottom <= shape[0]
    fitted = into_mnist(ink)
    assert fitted.shape == (28, 28)
    assert fitted.dtype == np.uint8


NUMBERS = st.one_of(
    st.integers(), st.floats(), st.integers(-10, 300), st.sampled_from([10**400, 2**53, 1e39, -0.0, 5e-324])
)
ANYTHING = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=5), st.dictionaries(st.text(max_size=5), inner, max_size=5)),
    max_leaves=20,
)
VECTOR = st.builds(
    lambda first, length: (first + [0.5] * 101)[:length], st.lists(NUMBERS, max_size=4), st.sampled_from((99, 100, 101))
)
FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "seeds": st.one_of(st.lists(NUMBERS, max_size=5), ANYTHING),
        "noise": st.one_of(st.lists(VECTOR, max_size=2), ANYTHING),
        "images": st.one_of(st.lists(st.text(max_size=9), max_size=3), ANYTHING),
        **dict.fromkeys(("count", "digit", "curated", "labels", "version", "scale", "\ud800", "a/b~"), ANYTHING),
    },
)


@st.composite
def body(draw: st.DrawFn) -> bytes:
    """JSON, or what was JSON before something happened to it."""
    text = json.dumps(draw(st.one_of(FIELDS, FIELDS, ANYTHING))).encode()
    if draw(st.booleans()):
        return text
    place = draw(st.integers(0, len(text)))
    return text[:place] + draw(st.binary(max_size=4)) + text[draw(st.integers(place, len(text))) :]


SETTINGS = load_settings()


@fuzz(content=body(), score=st.booleans())
def test_the_noise_parser_and_other_bodies(content: bytes, score: bool) -> None:
    async def receive() -> Message:
        return {"type": "http.request", "body": content, "more_body": False}

    request = Request({"type": "http", "headers": [(b"content-type", b"application/json")]}, receive)
    try:
        if score:
            asyncio.run(read_json(request, ScoreRequest))
            return
        wanted = asyncio.run(read_json(request, GenerateRequest))
        rows = source_of(wanted)
    except ProblemError as error:
        answer = problem_response(error, "/generate")
        assert 400 <= answer.status_code < 500
        assert orjson.loads(answer.body)["status"] == answer.status_code
        return
    if not isinstance(rows, GenerateRequest):
        noise = joined([rows[:MAX_BATCH]])
        assert noise.dtype == np.float32
        assert np.isfinite(noise).all()


@st.composite
def tensors(draw: st.DrawFn) -> tuple[bytes, str | None, str]:
    """A body of the Open Inference Protocol, the length of its JSON as the header has it, and the model."""
    model = draw(st.sampled_from(sorted(MODELS)))
    spec = MODELS[model].input
    rows = draw(st.integers(0, 3))
    size = draw(st.sampled_from((0, 1, 100, 400, 784, 1200, 2352)))
    tensor = {
        "name": draw(st.sampled_from((spec.name, "x"))),
        "datatype": draw(st.sampled_from(("FP32", "UINT8", "BYTES"))),
        "shape": draw(st.one_of(st.just([rows, *spec.shape]), st.lists(NUMBERS, max_size=4))),
        **draw(st.sampled_from(({}, {"data": [0.5] * 100}, {"data": [[1] * 784]}))),
        **draw(st.sampled_from(({}, {"parameters": {"binary_data_size": size}}))),
    }
    text = json.dumps(draw(st.one_of(st.just({"inputs": [tensor]}), ANYTHING))).encode()
    length = draw(st.one_of(st.none(), st.just(str(len(text))), st.integers(-1, 3000).map(str), st.text(max_size=3)))
    return text + draw(st.sampled_from((b"", b"\xff"))) * size, length, model


@fuzz(asked=tensors())
def test_the_inference_protocol(asked: tuple[bytes, str | None, str]) -> None:
    content, length, model = asked
    try:
        found = read_request(content, length, MODELS[model], 64)
    except ProblemError as error:
        answer = problem_response(error, "/v2")
        assert 400 <= answer.status_code < 500
        return
    assert found.rows.shape[1:] == MODELS[model].input.shape
    assert found.rows.dtype.name == MODELS[model].input.dtype


FORMATS_ON_OFFER = ("application/json", "image/png", "application/zip")
HEADER = st.text(st.characters(max_codepoint=255), max_size=80)
ACCEPT = st.lists(
    st.one_of(st.sampled_from(["*/*", "image/png", "q=0.5", ";", ",", " ", "=", "application/*"]), HEADER)
)


@fuzz(accept=ACCEPT.map("".join))
def test_the_negotiation(accept: str) -> None:
    with contextlib.suppress(ProblemError):
        request = Request({"type": "http", "headers": [(b"accept", accept.encode("latin-1"))]})
        assert negotiate(request, FORMATS_ON_OFFER) in FORMATS_ON_OFFER


KEY = new_key()
KEYS = (ApiKey("one", bytes.fromhex(hash_of(KEY))),)


@fuzz(scheme=st.sampled_from(["", "Bearer ", "Basic ", "basic"]), rest=HEADER)
def test_the_check_of_keys(scheme: str, rest: str) -> None:
    """Only the key's own header field gives access."""
    statuses: list[int] = []

    async def inside(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError("let in")

    async def send(message: Message) -> None:
        statuses.append(message.get("status", 0))

    async def receive() -> Message:
        raise AssertionError("read on")

    headers = [(b"authorization", (scheme + rest).encode("latin-1"))]
    scope = {"type": "http", "method": "GET", "path": "/generate", "headers": headers}
    asyncio.run(CheckKeys(inside, KEYS, 0)(scope, receive, send))
    assert statuses[0] == 401
