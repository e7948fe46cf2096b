"""Every wrong input gets the right 4xx as a problem document that names the fault, and the server goes on."""

import json
from collections.abc import Iterator
from math import inf, nan
from typing import Any

import pytest
from PIL import Image

from tests.support.gateways import GatewayClient, assert_problem, noise_input
from tests.support.pictures import base64_of, png_of, saved

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


@pytest.fixture(autouse=True)
def _goes_on(http: GatewayClient) -> Iterator[None]:
    """After each test the same process still makes digits."""
    yield
    assert http.post("/generate", json={"seeds": [7]}).status_code == 200
    assert http.process.process.poll() is None


WRONG: dict[str, dict[str, list[Any]]] = {
    "/generate": {
        "": [None, {}, [], {"digit": 7}, {"seeds": list(range(10**6))}],
        "/seeds": [{"seeds": seeds} for seeds in ([], None, {"0": 1}, list(range(5000)))],
        "/seeds/0": [{"seeds": [seed]} for seed in (2**53, 10**400, "1", True)],
        "/seeds/1": [{"seeds": [1, -1]}, {"seeds": [1.0, 1e300]}],
        "/seeds/2": [{"seeds": [1, 2, 3.5]}],
        "/noise": [{"noise": []}],
        "/noise/0": [{"noise": ZEROS}, {"noise": [[*ZEROS, 0.0]]}],
        "/noise/1": [{"noise": [ZEROS, ZEROS[:99]]}],
        "/noise/1/99": [{"noise": [ZEROS, [*ZEROS[:99], number]]} for number in ("0", True, 1e39, 10**400, nan, inf)],
        "/count": [{"count": count} for count in (0, 1.5, True, 4097)],
        "/seeds /count": [{"seeds": [1], "count": 1}],
        "/seeds /noise /count": [{"seeds": [1], "noise": [ZEROS], "count": 1}],
        "/scale /count": [{"count": 4000, "scale": 32}],
        "/digit": [{"seeds": [1], "digit": 7}],
        "/curated": [{"noise": [ZEROS], "curated": True}, {"count": 1, "curated": 1}],
        "/digit /curated": [{"seeds": [1], "digit": 0, "curated": True}],
        "/labels": [{"count": 1, "labels": "yes"}],
        "/start": [
            {"seeds": [1], "start": 0},
            {"count": 2, "start": 2**53 - 1},
            {"count": 1, "start": 2**52, "digit": 7},
        ],
        "/a~1b~0c": [{"seeds": [1], "a/b~c": 2}],
        "/seeds/0 /scale /version /x": [{"seeds": [-1], "scale": 33, "version": 2**53, "x": 1}],
    },
    "/interpolate": {
        "": [{}],
        "/seeds": [{"seeds": [1]}],
        "/seeds/1": [{"seeds": [1, -2]}],
        "/noise/1": [{"noise": [ZEROS, ZEROS[:99]]}],
        "/seeds /noise": [{"seeds": [1, 2], "noise": [ZEROS] * 2}],
        "/method /loop": [{"seeds": [1, 2], "method": "straight", "loop": 1}],
        "/seeds /steps": [{"seeds": list(range(10)), "steps": 1000}],
        "/scale /steps": [{"seeds": [1, 2], "steps": 1000, "scale": 32}],
    },
    "/dataset": {
        "/count": [{}, {"count": 100_001}],
        "/quotas": [{"count": 5, "quotas": [1] * 9}, {"count": 11, "quotas": [1] * 10}],
        "/quotas/0": [{"count": 5, "quotas": [-1] + [1] * 9}],
        "/quotas /balance": [{"count": 5, "quotas": [1] * 10, "balance": "mnist"}],
        "/balance /confidence_floor /logit_floor": [
            {"count": 5, "balance": "fair", "confidence_floor": 1.1, "logit_floor": "high"}
        ],
    },
    "/score": {
        "/images": [{}, {"images": []}, {"images": ["not base64!"] * 257}],
        "/images/0": [
            *({"images": [image]} for image in (None, "", "päng", "data:image/png,abc", "data:image/png;base64")),
            *({"images": [base64_of(file)]} for file in (bomb(4097), animated("WEBP"))),
            *({"images": [base64_of(saved(Image.new("L", (9, 9)), kind))]} for kind in ("GIF", "BMP", "TIFF")),
            {"images": [base64_of(png())[:-3]]},
        ],
        "/images/1": [{"images": [base64_of(png()), image]} for image in ("not base64!", base64_of(png()[:40]))],
        "/images/2": [{"images": [base64_of(png(4096, 2048)), base64_of(png(4096, 2048)), base64_of(png())]}],
        "/label /fit": [{"images": [base64_of(png())], "label": True, "fit": "some"}],
    },
    "/v2/models/generator/infer": {
        "/inputs": [{}, {"inputs": []}, {"inputs": None}, {"inputs": noise_input()["inputs"] * 2}],
        "/inputs/0/name": [noise_input(name="images"), noise_input(name=None)],
        "/inputs/0/datatype": [noise_input(datatype="FP64")],
        "/inputs/0/shape": [
            *(noise_input(shape=shape) for shape in (None, [], [2**60, 100])),
            noise_input(shape=[0, 100], data=[]),
        ],
        "/inputs/0/shape/0": [noise_input(shape=[rows, 100]) for rows in (-1, 1.0)],
        "/inputs/0/data": [
            *(noise_input(data=data) for data in (ZEROS[:99], [ZEROS[:99]], None)),
            noise_input(4096, data=["0" * 10**6, *[0] * 409_599]),  # NumPy would lengthen each number to a megabyte
            noise_input(2, data=[ZEROS, ZEROS[:99]]),
            *(noise_input(data=[number] * 100) for number in ("0.5", 1e39, 10**400)),
            noise_input(parameters={"binary_data_size": 400}),
        ],
        "/inputs/0/parameters/binary_data_size": [noise_input(data=None, parameters={"binary_data_size": 400})],
        "/inputs/0/parameters/shared_memory_region": [noise_input(data=None, parameters={"shared_memory_region": "x"})],
        "/outputs/0/name": [noise_input() | {"outputs": [{"name": "logits"}]}],
        "/outputs/1/name": [noise_input() | {"outputs": [{"name": "images"}] * 2}],
        "/outputs/0/parameters/classification": [
            noise_input() | {"outputs": [{"name": "images", "parameters": {"classification": 3}}]}
        ],
        "/id": [noise_input() | {"id": 7}],
    },
    "/v2/models/classifier/infer": {
        "/inputs/0/data": [
            noise_input(name="images", shape=[1, 28, 28, 1], datatype="UINT8", data=(pixels + [0] * 784)[:784])
            for pixels in ([-1], [256], [0.5], [True])
        ],
    },
}


@pytest.mark.parametrize(
    ("path", "places", "body"),
    [
        pytest.param(path, places.split(" "), body, id=f"{path} {places} {body!s:.40}")
        for path, by_places in WRONG.items()
        for places, bodies in by_places.items()
        for body in bodies
    ],
)
def test_wrong_values_are_named(http: GatewayClient, path: str, places: list[str], body: Any) -> None:
    assert_problem(http.post(path, content=json.dumps(body), headers=JSON), "invalid-request", *places)


@pytest.mark.parametrize(
    "body",
    ["", "{", '{"seeds": [1,]}', "{'seeds': [1]}", b"\xff\xfe", b'{"\xff": 1}', rb'{"\ud800": NaN}', "[" * 100_000],
)
def test_what_is_not_json_is_told_where(http: GatewayClient, body: str | bytes) -> None:
    problem = assert_problem(http.post("/generate", content=body, headers=JSON), "malformed-request")
    assert "line 1" in problem["detail"]


@pytest.mark.parametrize(
    ("accept", "body", "place", "words"),
    [
        ("application/zip", {"seeds": list(range(500_000))}, "/seeds", ""),
        ("application/zip", {"count": 100_001}, "/count", ""),
        ("application/x-npy", {"count": 100_001}, "/count", ""),
        ("application/x-npy", {"count": 1, "labels": True}, "/labels", "application/json and application/zip"),
        ("image/png", {"count": 1, "labels": True}, "/labels", "application/json and application/zip"),
    ],
)
def test_what_a_format_does_not_hold_is_named(
    http: GatewayClient, accept: str, body: Any, place: str, words: str
) -> None:
    response = http.post("/generate", json=body, headers={"Accept": accept})
    assert words in assert_problem(response, "invalid-request", place)["detail"]


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
def test_a_version_that_does_not_exist(
    http: GatewayClient, method: str, path: str, body: dict[str, Any] | None
) -> None:
    for accept in ("*/*", "application/x-npy") if body else ("*/*",):
        response = http.request(method, path, json=body and body | {"version": 99}, headers={"Accept": accept})
        assert_problem(response, "version-not-found")


@pytest.mark.parametrize(
    "image",
    [
        *(b"", saved(Image.new("L", (28, 28)), "JPEG"), png()[:45], png().replace(b"IDAT", b"IDAX"), animated()),
        *map(bomb, (65_000, 2**31 - 1, 4000, 0)),  # 4000: fewer pixels than it says
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


TWO = IMAGE + part("images", png(), "b.png")


@pytest.mark.parametrize(
    ("words", "bodies"),
    [
        ("breaks off in part 0", [b""]),
        ("breaks off in part 1", [IMAGE, IMAGE + b"--b-"]),
        ("breaks off in part 2", [TWO, TWO[:-20], IMAGE + part("labels", b"true")]),
        ("breaks off in part 2", [IMAGE + b"--b\r\n", IMAGE + b"--b\r\nContent-Disp"]),
        ("", [b"rubbish", b"--b\r\n\r\nx\r\n--b--\r\n"]),
        ("", [b"--b\r\nContent-Disposition: form-data\r\n\r\nx\r\n--b--\r\n"]),
    ],
)
def test_broken_multipart_is_refused(http: GatewayClient, words: str, bodies: list[bytes]) -> None:
    for body in bodies:
        problem = assert_problem(http.post("/score", content=body, headers=FORM), "malformed-request")
        assert words in problem["detail"]
        without_boundary = {"Content-Type": "multipart/form-data"}
        assert_problem(http.post("/score", content=body, headers=without_boundary), "malformed-request")
