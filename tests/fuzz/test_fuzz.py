"""Fuzzers of everything that reads what strangers send: no crash, no hang, and no error but the promised one.

A few seconds as part of the tests; ``make fuzz`` goes on for ``FUZZ_MINUTES`` (10) in all, with new examples each time.
"""

import base64
import json
import os
import struct
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import Any, Final, get_args

import httpx
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from api.digits.fit import Fit
from api.middleware.keys import hash_of, new_key
from api.oip.messages import HEADER_LENGTH
from serving.contract import MODELS
from tests.support import gateways, pictures
from tests.support.gateways import GatewayClient, noise_input

MINUTES: Final = float(os.environ.get("FUZZ_MINUTES", "0"))
TARGETS: Final = 5
EXAMPLES: Final = 2000 if MINUTES else 60
HANGING: Final = timedelta(seconds=60)
"""No example comes near it, even on a busy machine."""
KEY: Final = new_key()


@pytest.fixture(scope="module")
def http(model_server: str) -> Iterator[GatewayClient]:
    with gateways.serving(model_server, api_keys=f"me:{hash_of(KEY)}", key_images_per_minute=0) as client:
        client.headers["Authorization"] = f"Bearer {KEY}"
        yield client
        assert "Traceback" not in client.process.log


def fuzz(**inputs: st.SearchStrategy[Any]) -> Callable[[Callable[..., None]], Callable[[GatewayClient], None]]:
    """Runs a check on examples: EXAMPLES of them, or as many as its share of MINUTES has time for."""

    def decorate(check: Callable[..., None]) -> Callable[[GatewayClient], None]:
        def test(http: GatewayClient) -> None:
            examples = 0

            @settings(max_examples=EXAMPLES, deadline=HANGING, database=None, suppress_health_check=list(HealthCheck))
            @given(**inputs)
            def run(**example: Any) -> None:
                nonlocal examples
                examples += 1
                check(http, **example)

            end = time.monotonic() + MINUTES * 60 / TARGETS
            run()
            while time.monotonic() < end:
                run()
            print(f"{check.__name__}: {examples:,} examples")

        return test

    return decorate


def is_good(answer: httpx.Response) -> bool:
    """Whether a request was answered well. Passes for no other failure than a problem of the client's."""
    if answer.status_code == 200:
        return True
    assert 400 <= answer.status_code < 500, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["status"] == answer.status_code
    return False


def saved(mode: str, kind: str, side: int, **options: Any) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return pictures.saved(Image.linear_gradient("L").resize((side, side)).convert(mode), kind, exif=exif, **options)


IMAGES: Final = [
    *(saved(mode, "PNG", side) for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16") for side in (28, 40)),
    *(saved(mode, "JPEG", 40, progressive=slow) for mode in ("L", "RGB", "CMYK") for slow in (False, True)),
    *(saved(mode, "WEBP", 40, lossless=lossless) for mode in ("L", "RGBA") for lossless in (False, True)),
    saved("L", "PNG", 28, save_all=True, append_images=[Image.new("L", (28, 28), 9)]),
]
"""A good file of each kind, to be damaged."""


@st.composite
def damaged(draw: st.DrawFn, whole: Sequence[bytes]) -> bytes:
    """One of ``whole`` with bytes changed, cut out, doubled and put in."""
    content = bytearray(draw(st.sampled_from(whole)))
    for _ in range(draw(st.integers(0, 8))):
        place = draw(st.integers(0, len(content)))
        length = draw(st.sampled_from((1, 2, 4, 16, 200)))
        match draw(st.integers(0, 3)):
            case 0:
                content[place : place + length] = draw(st.binary(min_size=length, max_size=length))
            case 1:
                del content[place : place + length]
            case 2:
                content[place:place] = content[place : place + length]
            case 3:
                content[place : place + 4] = draw(st.integers(0, 2**32 - 1)).to_bytes(
                    4, draw(st.sampled_from(("big", "little")))
                )
    return bytes(content)


@st.composite
def chunked(draw: st.DrawFn) -> bytes:
    """A PNG of right checksums and wrong everything else."""
    kinds = st.sampled_from((b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"iCCP", b"zTXt", b"iTXt", b"eXIf", b"acTL"))
    bounds = (300, 300, 16, 7, 1, 1, 1)
    header = struct.pack(">2I5B", *(draw(st.integers(0, most)) for most in bounds))
    parts = [(b"IHDR", header), *draw(st.lists(st.tuples(kinds, st.binary(max_size=60)), max_size=8))]
    parts += [(b"IDAT", zlib.compress(draw(st.binary(max_size=3000)))), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(pictures.chunk(*part) for part in parts)


FILE = st.one_of(damaged(IMAGES), chunked(), st.binary(max_size=200))


@fuzz(file=FILE, raw=st.booleans(), fit=st.sampled_from(get_args(Fit)))
def test_image_files(http: GatewayClient, file: bytes, raw: bool, fit: Fit) -> None:
    body = {"content": file, "headers": {"Content-Type": "image/png"}} if raw else {"files": {"images": file}}
    is_good(http.post(f"/score?fit={fit}", **body))


@fuzz(
    shape=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    values=st.lists(st.integers(0, 255), min_size=1, max_size=200),
    seed=st.integers(0, 2**32),
    channels=st.sampled_from(((), (3,))),
)
def test_drawings(
    http: GatewayClient, shape: tuple[int, int], values: list[int], seed: int, channels: tuple[int, ...]
) -> None:
    page = np.random.default_rng(seed).choice(np.array(values, np.uint8), shape + channels)
    answer = http.post("/score?fit=always", files={"images": pictures.saved(page)})
    assert is_good(answer)
    if box := answer.json()["scores"][0]["box"]:
        left, top, right, bottom = box
        assert 0 <= left < right <= shape[1]
        assert 0 <= top < bottom <= shape[0]


BODIES: Final = {
    "/generate": [
        b'{"seeds": [7, 7.0, 9007199254740991], "labels": true, "scale": 2, "version": 1}',
        json.dumps({"noise": [[0.5, -1e3, 5e-324, *[0] * 97]]}).encode(),
        b'{"count": 3, "digit": 7, "curated": true, "start": 4503599627370496}',
        b'{"\\ud800": NaN, "a/b~": null, "count": 1e400}',
    ],
    "/score": [
        json.dumps({"images": [base64.b64encode(image).decode() for image in IMAGES[:2]], "fit": "always"}).encode()
    ],
}
VISIBLE = st.text(st.characters(min_codepoint=33, max_codepoint=255, exclude_categories=["Cc"]), max_size=80)
ACCEPT = st.lists(
    st.one_of(st.sampled_from(["*/*", "image/png", "q=0.5", ";", ",", " ", "=", "application/*"]), VISIBLE)
).map(lambda parts: "".join(parts).strip())


@fuzz(asked=st.one_of(*(st.tuples(st.just(path), damaged(whole)) for path, whole in BODIES.items())), accept=ACCEPT)
def test_bodies_and_accept(http: GatewayClient, asked: tuple[str, bytes], accept: str) -> None:
    path, content = asked
    headers = {b"Content-Type": b"application/json", b"Accept": accept.encode("latin-1")}
    is_good(http.post(path, content=content, headers=headers))


INFERENCE: Final = json.dumps(noise_input()).encode()
BINARY: Final = (
    b'{"inputs": [{"name": "images", "datatype": "UINT8", "shape": [2, 28, 28, 1], "parameters": '
    b'{"binary_data_size": 1568}}]}'
)


@fuzz(
    model=st.sampled_from(sorted(MODELS)),
    content=damaged([INFERENCE, BINARY + bytes(1568)]),
    length=st.one_of(st.none(), st.just(str(len(BINARY))), st.integers(-1, 3000).map(str), VISIBLE),
)
def test_the_inference_protocol(http: GatewayClient, model: str, content: bytes, length: str | None) -> None:
    headers = {} if length is None else {HEADER_LENGTH.encode(): length.encode("latin-1")}
    is_good(http.post(f"/v2/models/{model}/infer", content=content, headers=headers))


@fuzz(scheme=st.sampled_from(["", "Bearer ", "Basic ", "basic"]), rest=VISIBLE)
def test_the_check_of_keys(http: GatewayClient, scheme: str, rest: str) -> None:
    headers = {b"Authorization": (scheme + rest).strip().encode("latin-1")}
    assert http.get("/digits/7.png", headers=headers).status_code == 401
