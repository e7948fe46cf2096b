"""Every wrong input gets the right 4xx as a problem document that names the fault, and the server goes on."""

import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest
from PIL import Image

from tests.support.gateways import GatewayClient
from tests.support.pictures import png_of, saved
from tests.support.problems import assert_problem

ZEROS = [0.0] * 100
JSON = {"Content-Type": "application/json"}
FORM = {"Content-Type": "multipart/form-data; boundary=b"}


def png(width: int = 28, height: int = 28) -> bytes:
    return saved(Image.new("L", (width, height)))


def bomb(side: int) -> bytes:
    """A small PNG that says it has side × side pixels."""
    return png_of(side, side, bytes(1 << 20))


def animated(kind: str = "PNG") -> bytes:
    first, *others = (Image.new("L", (28, 28), shade) for shade in (0, 128, 255))
    return saved(first, kind, save_all=True, append_images=others)


JPEG = saved(Image.new("L", (28, 28)), "JPEG")


def text(image: bytes) -> str:
    return base64.b64encode(image).decode()


@pytest.fixture(autouse=True)
def _goes_on(http: GatewayClient) -> Iterator[None]:
    """After each test the same process still makes digits."""
    yield
    assert http.post("/generate", json={"seeds": [7]}).status_code == 200
    assert http.process.process.poll() is None


WRONG: dict[str, list[tuple[Any, list[str]]]] = {
    "/generate": [
        ({}, [""]),
        ([], [""]),
        ({"seeds": [1], "count": 1}, ["/seeds", "/count"]),
        ({"seeds": [1], "noise": [ZEROS], "count": 1}, ["/seeds", "/noise", "/count"]),
        ({"seeds": []}, ["/seeds"]),
        ({"seeds": None}, ["/seeds"]),
        ({"seeds": {"0": 1}}, ["/seeds"]),
        ({"seeds": [1, -1]}, ["/seeds/1"]),
        ({"seeds": [2**53]}, ["/seeds/0"]),
        ({"seeds": [10**400]}, ["/seeds/0"]),
        ({"seeds": [1, 2, 3.5]}, ["/seeds/2"]),
        ({"seeds": [1.0, 1e300]}, ["/seeds/1"]),
        ({"seeds": ["1"]}, ["/seeds/0"]),
        ({"seeds": [True]}, ["/seeds/0"]),
        ({"noise": []}, ["/noise"]),
        ({"noise": ZEROS}, ["/noise/0"]),
        ({"noise": [ZEROS, ZEROS[:99]]}, ["/noise/1"]),
        ({"noise": [[*ZEROS, 0.0]]}, ["/noise/0"]),
        ({"noise": [[*ZEROS[:99], "0"]]}, ["/noise/0/99"]),
        ({"noise": [[*ZEROS[:99], True]]}, ["/noise/0/99"]),
        ({"noise": [[*ZEROS[:99], 1e39]]}, ["/noise/0/99"]),
        ({"noise": [[*ZEROS[:99], 10**400]]}, ["/noise/0/99"]),
        ({"count": 0}, ["/count"]),
        ({"count": 1.5}, ["/count"]),
        ({"count": True}, ["/count"]),
        ({"count": 4097}, ["/count"]),
        ({"seeds": [1], "scale": 0}, ["/scale"]),
        ({"seeds": [1], "scale": 33}, ["/scale"]),
        ({"seeds": [1], "version": -1}, ["/version"]),
        ({"seeds": [1], "version": 2**53}, ["/version"]),
        ({"seeds": [1], "a/b~c": 2}, ["/a~1b~0c"]),
        ({"seeds": [-1], "scale": 99, "x": 1}, ["/seeds/0", "/scale", "/x"]),
        ({"count": 4000, "scale": 32}, ["/scale", "/count"]),
        ({"seeds": [1], "digit": 7}, ["/digit"]),
        ({"noise": [ZEROS], "curated": True}, ["/curated"]),
        ({"seeds": [1], "digit": 0, "curated": True}, ["/digit", "/curated"]),
        ({"count": 1, "digit": 10}, ["/digit"]),
        ({"count": 1, "curated": 1}, ["/curated"]),
        ({"count": 1, "labels": "yes"}, ["/labels"]),
        ({"digit": 7}, [""]),
        ({"seeds": [1], "start": 0}, ["/start"]),
        ({"count": 2, "start": 2**53 - 1}, ["/start"]),
        ({"count": 1, "start": 2**52, "digit": 7}, ["/start"]),
    ],
    "/interpolate": [
        ({}, [""]),
        ({"seeds": [1]}, ["/seeds"]),
        ({"seeds": [1, 2], "noise": [ZEROS] * 2}, ["/seeds", "/noise"]),
        ({"seeds": [1, -2]}, ["/seeds/1"]),
        ({"noise": [ZEROS, ZEROS[:99]]}, ["/noise/1"]),
        ({"seeds": [1, 2], "steps": 1001}, ["/steps"]),
        ({"seeds": [1, 2], "method": "straight"}, ["/method"]),
        ({"seeds": [1, 2], "loop": 1}, ["/loop"]),
        ({"seeds": [1, 2], "frame_ms": 10}, ["/frame_ms"]),
        ({"seeds": list(range(10)), "steps": 1000}, ["/seeds", "/steps"]),
        ({"seeds": [1, 2], "steps": 1000, "scale": 32}, ["/scale", "/steps"]),
    ],
    "/dataset": [
        ({}, ["/count"]),
        ({"count": 100_001}, ["/count"]),
        ({"count": 5, "balance": "fair"}, ["/balance"]),
        ({"count": 5, "quotas": [1] * 9}, ["/quotas"]),
        ({"count": 5, "quotas": [-1] + [1] * 9}, ["/quotas/0"]),
        ({"count": 11, "quotas": [1] * 10}, ["/quotas"]),
        ({"count": 5, "quotas": [1] * 10, "balance": "mnist"}, ["/quotas", "/balance"]),
        ({"count": 5, "confidence_floor": 1.1}, ["/confidence_floor"]),
        ({"count": 5, "logit_floor": "high"}, ["/logit_floor"]),
        ({"count": 5, "first_seed": 2**53}, ["/first_seed"]),
    ],
    "/score": [
        ({}, ["/images"]),
        ({"images": []}, ["/images"]),
        ({"images": [None]}, ["/images/0"]),
        ({"images": [text(png()), "not base64!"]}, ["/images/1"]),
        ({"images": [text(png())[:-3]]}, ["/images/0"]),
        ({"images": ["päng"]}, ["/images/0"]),
        ({"images": ["data:image/png,abc"]}, ["/images/0"]),
        ({"images": ["data:image/png;base64"]}, ["/images/0"]),
        ({"images": [""]}, ["/images/0"]),
        *(({"images": [text(saved(Image.new("L", (9, 9)), kind))]}, ["/images/0"]) for kind in ("GIF", "BMP", "TIFF")),
        ({"images": [text(animated("WEBP"))]}, ["/images/0"]),
        ({"images": [text(png()), text(png()[:40])]}, ["/images/1"]),
        ({"images": [text(bomb(4097))]}, ["/images/0"]),
        ({"images": ["not base64!"] * 257}, ["/images"]),
        ({"images": [text(png(4096, 2048)), text(png(4096, 2048)), text(png())]}, ["/images/2"]),
        ({"images": [text(png())], "label": True}, ["/label"]),
        ({"images": [text(png())], "fit": "some"}, ["/fit"]),
    ],
}


@pytest.mark.parametrize(
    ("path", "body", "places"),
    [pytest.param(path, *row, id=f"{path} {row[0]!s:.40}") for path, rows in WRONG.items() for row in rows],
)
def test_wrong_values_are_named(http: GatewayClient, path: str, body: Any, places: list[str]) -> None:
    assert_problem(http.post(path, json=body), "invalid-request", *places)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_numbers_that_json_does_not_have_are_named(http: GatewayClient, number: str) -> None:
    row = ",".join(["0"] * 41 + [number] + ["0"] * 58)
    body = f'{{"noise": [[{",".join(["0"] * 100)}], [{row}]]}}'
    assert_problem(http.post("/generate", content=body, headers=JSON), "invalid-request", "/noise/1/41")


@pytest.mark.parametrize(
    "body",
    ["", "{", '{"seeds": [1,]}', "{'seeds': [1]}", b"\xff\xfe", b'{"\xff": 1}', rb'{"\ud800": NaN}', "[" * 100_000],
)
def test_what_is_not_json_is_told_where(http: GatewayClient, body: str | bytes) -> None:
    problem = assert_problem(http.post("/generate", content=body, headers=JSON), "malformed-request")
    assert "line 1" in problem["detail"]


@pytest.mark.parametrize(
    ("accept", "body", "place"),
    [
        ("application/json", None, ""),
        ("application/json", {"seeds": list(range(5_000))}, "/seeds"),
        ("application/json", {"seeds": list(range(10**6))}, ""),
        ("application/zip", {"seeds": list(range(500_000))}, "/seeds"),
        ("application/zip", {"count": 100_001}, "/count"),
        ("application/x-npy", {"count": 100_001}, "/count"),
    ],
    ids=["null", "seeds", "values", "seeds of a zip", "count of a zip", "count of a npy"],
)
def test_null_and_too_many_images_name_the_field(http: GatewayClient, accept: str, body: Any, place: str) -> None:
    response = http.post("/generate", content=json.dumps(body), headers=JSON | {"Accept": accept})
    assert_problem(response, "invalid-request", place)


@pytest.mark.parametrize(
    ("path", "media_type", "accepted"),
    [
        *(("/generate", kind, "application/json") for kind in ("text/plain", "json", None)),
        *(("/score", kind, "application/json, multipart/form-data, image/png") for kind in ("image/jpeg", None)),
        *((path, "text/plain", "application/json") for path in ("/interpolate", "/dataset")),
        ("/generate", "x" * 60_000, "application/json"),
        # Python's punycode takes time by the square of the length: minutes for a mebibyte.
        ("/score", "multipart/form-data; boundary=b; charset=punycode", None),
    ],
)
def test_another_content_type_is_refused(
    http: GatewayClient, path: str, media_type: str | None, accepted: str | None
) -> None:
    headers = {"Content-Type": media_type} if media_type else {}
    response = http.post(path, content=b'{"seeds": [1]}', headers=headers)
    assert_problem(response, "unsupported-media-type")
    assert response.headers.get("accept") == accepted
    assert len(response.content) < 1000


def test_a_content_type_with_parameters_is_understood_and_a_compressed_body_refused(http: GatewayClient) -> None:
    headers = {"Content-Type": "Application/JSON; charset=utf-8"}
    assert http.post("/generate", content=b'{"seeds": [1]}', headers=headers).status_code == 200
    response = http.post("/generate", content=b"\x1f\x8b", headers=JSON | {"Content-Encoding": "gzip"})
    assert_problem(response, "unsupported-media-type")


@pytest.mark.parametrize(
    ("path", "accept", "offer"),
    [
        ("/generate", "text/html", "application/x-npy"),
        *(("/generate", accept, "application/x-npy") for accept in ("*/*;q=0", "rubbish", ";q=1", "*/png")),
        *(("/generate", accept, "application/x-npy") for accept in ("text/*", "image/png;q=2", "image/png;q=0")),
        ("/interpolate", "video/mp4", "image/gif"),
        ("/dataset", "application/json", "application/zip"),
        ("/score", "image/png", "application/json"),
    ],
)
def test_an_unknown_accept_is_told_what_there_is(http: GatewayClient, path: str, accept: str, offer: str) -> None:
    response = http.post(path, json={"seeds": [1]}, headers={"Accept": accept})
    assert offer in assert_problem(response, "not-acceptable")["detail"]


@pytest.mark.parametrize("piece", ["[]", "{}", '{"a":0}', '"a"', "[0]"])
def test_json_that_would_be_large_in_memory_is_not_parsed(http: GatewayClient, piece: str) -> None:
    body = '{"seeds": [' + ",".join([piece] * (8 * 10**6 // (len(piece) + 1))) + "]}"
    http.post("/generate", content=body[:-1], headers=JSON)  # so that the buffers for the body are there
    before = http.process.resident_bytes()
    assert_problem(http.post("/generate", content=body, headers=JSON), "invalid-request", "")
    assert http.process.resident_bytes() - before < 30e6, "parsed, it takes 130 to 200 MB"


def test_twenty_megabytes_are_refused_however_they_come(http: GatewayClient) -> None:
    def pieces() -> Iterator[bytes]:
        for _ in range(20):
            yield bytes(1 << 20)

    for path, media_type in (("/generate", "application/json"), ("/score", "image/png")):
        for content in (bytes(20 << 20), pieces()):
            response = http.post(path, content=content, headers={"Content-Type": media_type})
            assert "8388608" in assert_problem(response, "body-too-large")["detail"]
    assert_problem(http.post("/score", files={"images": bytes(20 << 20)}), "body-too-large")


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/digits/7.png?version=99", None),
        ("GET", "/story?version=99", None),
        *(("POST", "/generate", body) for body in ({"seeds": [1]}, {"count": 1, "digit": 7})),
        ("POST", "/interpolate", {"seeds": [1, 2]}),
        ("POST", "/dataset", {"count": 5}),
    ],
)
def test_a_version_that_does_not_exist_is_the_callers_404(
    http: GatewayClient, method: str, path: str, body: dict[str, Any] | None
) -> None:
    for accept in ("*/*", "application/x-npy") if body else ("*/*",):
        response = http.request(method, path, json=body and body | {"version": 99}, headers={"Accept": accept})
        assert_problem(response, "version-not-found")


@pytest.mark.parametrize(
    "image",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(JPEG, id="a JPEG"),
        pytest.param(png()[:45], id="truncated"),
        pytest.param(png().replace(b"IDAT", b"IDAX"), id="no pixels inside"),
        pytest.param(bomb(65_000), id="a bomb"),
        pytest.param(bomb(2**31 - 1), id="a bomb beyond all limits"),
        pytest.param(bomb(4000), id="less than announced"),
        pytest.param(bomb(0), id="no pixels"),
        pytest.param(animated(), id="animated"),
    ],
)
def test_a_raw_body_that_is_no_good_png_is_named(http: GatewayClient, image: bytes) -> None:
    response = http.post("/score", content=image, headers={"Content-Type": "image/png"})
    assert_problem(response, "invalid-request", "")


def part(name: str, content: bytes, filename: str = "") -> bytes:
    """A part of a multipart body with the boundary "b", and what ends its content."""
    file = f'; filename="{filename}"' if filename else ""
    return f'--b\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'.encode() + content + b"\r\n"


IMAGE = part("images", png(), "a.png")


@pytest.mark.parametrize(
    ("parts", "places", "words"),
    [
        (IMAGE + part("images", b"no image", "b.png"), ["/images/1"], "not an image"),
        (part("images", b"", "a.png"), ["/images/0"], "not an image"),
        (part("picture", png(), "a.png"), ["/picture"], "only files in the field images"),
        (part("images", b"no file") * 257, ["/images"], "257 images"),
        (IMAGE + part("images", png()), ["/images/1"], "filename"),
        (b"", ["/images"], "0 images"),
        (IMAGE + part("fit", b"some"), ["/fit"], "'auto', 'always' or 'never'"),
        (IMAGE + part("labels", b"perhaps"), ["/labels"], "boolean"),
        (IMAGE + part("label", b"true"), ["/label"], "only files in the field images"),
    ],
    ids=["no image", "empty", "another field", "too many", "no file", "no parts", "fit", "labels", "label"],
)
def test_wrong_parts_are_named(http: GatewayClient, parts: bytes, places: list[str], words: str) -> None:
    response = http.post("/score", content=parts + b"--b--\r\n", headers=FORM)
    assert words in assert_problem(response, "invalid-request", *places)["errors"][0]["detail"]


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        pytest.param(b"", "breaks off in part 0", id="empty"),
        pytest.param(b"rubbish", "", id="no boundary"),
        pytest.param(b"--b\r\nContent-Disposition: form-data\r\n\r\nx\r\n--b--\r\n", "", id="no name"),
        pytest.param(b"--b\r\n\r\nx\r\n--b--\r\n", "", id="no header"),
        pytest.param(IMAGE + part("images", png(), "b.png")[:-20], "breaks off in part 2", id="in a file"),
        pytest.param(IMAGE + part("images", png(), "b.png"), "breaks off in part 2", id="at its end"),
        pytest.param(IMAGE + part("labels", b"true"), "breaks off in part 2", id="after a field"),
        pytest.param(IMAGE + b"--b\r\nContent-Disp", "breaks off in part 2", id="in a header"),
        pytest.param(IMAGE + b"--b\r\n", "breaks off in part 2", id="at a boundary"),
        pytest.param(IMAGE + b"--b-", "breaks off in part 1", id="in the last boundary"),
        pytest.param(IMAGE, "breaks off in part 1", id="at once"),
    ],
)
def test_broken_multipart_is_refused(http: GatewayClient, parts: bytes, words: str) -> None:
    problem = assert_problem(http.post("/score", content=parts, headers=FORM), "malformed-request")
    assert words in problem["detail"]
    without_boundary = {"Content-Type": "multipart/form-data"}
    assert_problem(http.post("/score", content=parts, headers=without_boundary), "malformed-request")
