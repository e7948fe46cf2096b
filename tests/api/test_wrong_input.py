"""Every wrong input gets the right 4xx as a problem document that names the fault, and the server goes on."""

import base64
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from PIL import Image

from tests.api.problem import assert_problem
from tests.support.pictures import png_of, saved
from tests.support.processes import ServerProcess

ZEROS = [0.0] * 100


def png(width: int = 28, height: int = 28) -> bytes:
    return saved(Image.new("L", (width, height)))


def bomb(side: int) -> bytes:
    """A small PNG that says it has side × side pixels."""
    return png_of(side, side, bytes(1 << 20))


def animated() -> bytes:
    first, *others = (Image.new("L", (28, 28), shade) for shade in (0, 128, 255))
    return saved(first, save_all=True, append_images=others)


JPEG = saved(Image.new("L", (28, 28)), "JPEG")


def text(image: bytes) -> str:
    return base64.b64encode(image).decode()


@pytest.fixture(autouse=True)
def _goes_on(http: httpx.Client, gateway: ServerProcess) -> Iterator[None]:
    """After each test the same process still makes digits."""
    yield
    assert http.post("/generate", json={"seeds": [7]}).status_code == 200
    assert gateway.process.poll() is None


class TestGenerate:
    @pytest.mark.parametrize(
        ("body", "places"),
        [
            ({}, [""]),
            ([], [""]),
            ("seeds", [""]),
            (7, [""]),
            ({"seeds": [1], "noise": [ZEROS]}, ["/seeds", "/noise"]),
            ({"seeds": [1], "count": 1}, ["/seeds", "/count"]),
            ({"seeds": [1], "noise": [ZEROS], "count": 1}, ["/seeds", "/noise", "/count"]),
            ({"scale": 2}, [""]),
            ({"seeds": []}, ["/seeds"]),
            ({"seeds": None}, ["/seeds"]),
            ({"seeds": 7}, ["/seeds"]),
            ({"seeds": {"0": 1}}, ["/seeds"]),
            ({"seeds": [1, -1]}, ["/seeds/1"]),
            ({"seeds": [2**53]}, ["/seeds/0"]),
            ({"seeds": [2**64]}, ["/seeds/0"]),
            ({"seeds": [10**400]}, ["/seeds/0"]),
            ({"seeds": [1, 2, 3.5]}, ["/seeds/2"]),
            ({"seeds": [1.0, 1e300]}, ["/seeds/1"]),
            ({"seeds": ["1"]}, ["/seeds/0"]),
            ({"seeds": [True]}, ["/seeds/0"]),
            ({"seeds": [None]}, ["/seeds/0"]),
            ({"seeds": [[1]]}, ["/seeds/0"]),
            ({"noise": []}, ["/noise"]),
            ({"noise": ZEROS}, ["/noise/0"]),
            ({"noise": [[]]}, ["/noise/0"]),
            ({"noise": [ZEROS, ZEROS[:99]]}, ["/noise/1"]),
            ({"noise": [[*ZEROS, 0.0]]}, ["/noise/0"]),
            ({"noise": [[*ZEROS[:99], "0"]]}, ["/noise/0/99"]),
            ({"noise": [[*ZEROS[:99], None]]}, ["/noise/0/99"]),
            ({"noise": [[*ZEROS[:99], True]]}, ["/noise/0/99"]),
            ({"noise": [[*ZEROS[:99], 1e39]]}, ["/noise/0/99"]),
            ({"noise": [[*ZEROS[:99], 10**400]]}, ["/noise/0/99"]),
            ({"count": 0}, ["/count"]),
            ({"count": -1}, ["/count"]),
            ({"count": 1.5}, ["/count"]),
            ({"count": "3"}, ["/count"]),
            ({"count": True}, ["/count"]),
            ({"count": 4097}, ["/count"]),
            ({"count": 10**18}, ["/count"]),
            ({"seeds": [1], "scale": 0}, ["/scale"]),
            ({"seeds": [1], "scale": 33}, ["/scale"]),
            ({"seeds": [1], "scale": 1.5}, ["/scale"]),
            ({"seeds": [1], "scale": None}, ["/scale"]),
            ({"seeds": [1], "version": -1}, ["/version"]),
            ({"seeds": [1], "version": "1"}, ["/version"]),
            ({"seeds": [1], "version": 2**53}, ["/version"]),
            ({"seeds": [1], "sclae": 2}, ["/sclae"]),
            ({"seeds": [1], "a/b~c": 2}, ["/a~1b~0c"]),
            ({"seeds": [-1], "scale": 99, "x": 1}, ["/seeds/0", "/scale", "/x"]),
            ({"count": 4000, "scale": 32}, ["/scale", "/count"]),
        ],
    )
    def test_wrong_values_are_named(self, http: httpx.Client, body: Any, places: list[str]) -> None:
        assert_problem(http.post("/generate", json=body), "invalid-request", *places)

    def test_null_is_no_object(self, http: httpx.Client) -> None:
        response = http.post("/generate", content=b"null", headers={"Content-Type": "application/json"})
        assert_problem(response, "invalid-request", "")

    @pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
    def test_numbers_that_json_does_not_have_are_named(self, http: httpx.Client, number: str) -> None:
        row = ",".join(["0"] * 41 + [number] + ["0"] * 58)
        body = f'{{"noise": [[{",".join(["0"] * 100)}], [{row}]]}}'
        response = http.post("/generate", content=body, headers={"Content-Type": "application/json"})
        assert_problem(response, "invalid-request", "/noise/1/41")

    @pytest.mark.parametrize(
        "body",
        [
            "",
            "{",
            "seeds=7",
            '{"seeds": [1,]}',
            "{'seeds': [1]}",
            b"\xff\xfe",
            b'{"seeds": [1], "\xff": 1}',
            "[" * 100_000,
            '{"seeds": ' * 5000,
        ],
    )
    def test_what_is_not_json_is_told_where(self, http: httpx.Client, body: str | bytes) -> None:
        response = http.post("/generate", content=body, headers={"Content-Type": "application/json"})
        assert "line 1" in assert_problem(response, "malformed-request")["detail"]

    def test_a_million_seeds_name_the_field(self, http: httpx.Client) -> None:
        body = '{"seeds": [' + ",".join(["7"] * 10**6) + "]}"
        for accept in ("application/json", "application/zip"):
            headers = {"Content-Type": "application/json", "Accept": accept}
            response = http.post("/generate", content=body, headers=headers)
            assert_problem(response, "invalid-request", "/seeds")

    def test_a_zip_has_its_own_limit(self, http: httpx.Client) -> None:
        for accept in ("application/zip", "application/x-npy"):
            response = http.post("/generate", json={"count": 100_001}, headers={"Accept": accept})
            assert_problem(response, "invalid-request", "/count")

    @pytest.mark.parametrize("media_type", ["text/plain", "application/x-www-form-urlencoded", "json", None])
    def test_another_content_type_is_refused(self, http: httpx.Client, media_type: str | None) -> None:
        headers = {"Content-Type": media_type} if media_type else {}
        response = http.post("/generate", content=b'{"seeds": [1]}', headers=headers)
        assert_problem(response, "unsupported-media-type")
        assert response.headers["accept"] == "application/json"

    def test_a_content_type_with_parameters_is_understood(self, http: httpx.Client) -> None:
        headers = {"Content-Type": "Application/JSON; charset=utf-8"}
        assert http.post("/generate", content=b'{"seeds": [1]}', headers=headers).status_code == 200

    def test_a_compressed_body_is_refused(self, http: httpx.Client) -> None:
        headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
        response = http.post("/generate", content=b"\x1f\x8b", headers=headers)
        assert_problem(response, "unsupported-media-type")

    @pytest.mark.parametrize("accept", ["text/html", "image/jpeg", "application/json;q=0", "rubbish", "image/*;q=0"])
    def test_an_unknown_accept_is_told_what_there_is(self, http: httpx.Client, accept: str) -> None:
        response = http.post("/generate", json={"seeds": [1]}, headers={"Accept": accept})
        assert "application/x-npy" in assert_problem(response, "not-acceptable")["detail"]


class TestBodySize:
    def test_twenty_megabytes_are_refused(self, http: httpx.Client) -> None:
        response = http.post("/generate", content=bytes(20 << 20), headers={"Content-Type": "application/json"})
        assert "8388608" in assert_problem(response, "body-too-large")["detail"]

    def test_they_are_refused_while_they_stream_too(self, http: httpx.Client) -> None:
        def pieces() -> Iterator[bytes]:
            for _ in range(20):
                yield bytes(1 << 20)

        for path, media_type in (("/generate", "application/json"), ("/score", "image/png")):
            response = http.post(path, content=pieces(), headers={"Content-Type": media_type})
            assert_problem(response, "body-too-large")

    def test_a_multipart_body_has_the_same_limit(self, http: httpx.Client) -> None:
        assert_problem(http.post("/score", files={"images": bytes(20 << 20)}), "body-too-large")


def part(name: str, content: bytes, filename: str = "") -> bytes:
    """A part of a multipart body with the boundary "b", and what ends its content."""
    file = f'; filename="{filename}"' if filename else ""
    return f'--b\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'.encode() + content + b"\r\n"


class TestScore:
    @pytest.mark.parametrize(
        ("body", "places"),
        [
            ({}, ["/images"]),
            ([], [""]),
            ({"images": []}, ["/images"]),
            ({"images": "x"}, ["/images"]),
            ({"images": [7]}, ["/images/0"]),
            ({"images": [None]}, ["/images/0"]),
            ({"images": [text(png()), "not base64!"]}, ["/images/1"]),
            ({"images": [text(png())[:-3]]}, ["/images/0"]),
            ({"images": ["ümlaut"]}, ["/images/0"]),
            ({"images": [""]}, ["/images/0"]),
            ({"images": [text(b"GIF89a" + bytes(100))]}, ["/images/0"]),
            ({"images": [text(png()), text(png()[:40])]}, ["/images/1"]),
            ({"images": [text(bomb(30_000))]}, ["/images/0"]),
            ({"images": [text(bomb(4097))]}, ["/images/0"]),
            ({"images": [text(animated())]}, ["/images/0"]),
            ({"images": [text(png())] * 257}, ["/images"]),
            ({"images": [text(png())], "label": True}, ["/label"]),
        ],
        ids=lambda value: str(value)[:40],
    )
    def test_wrong_values_are_named(self, http: httpx.Client, body: Any, places: list[str]) -> None:
        assert_problem(http.post("/score", json=body), "invalid-request", *places)

    @pytest.mark.parametrize(
        "image",
        [
            pytest.param(b"", id="nothing"),
            pytest.param(b"hello", id="text"),
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
    def test_a_raw_body_that_is_no_good_png_is_named(self, http: httpx.Client, image: bytes) -> None:
        response = http.post("/score", content=image, headers={"Content-Type": "image/png"})
        assert_problem(response, "invalid-request", "")

    @pytest.mark.parametrize("media_type", ["image/jpeg", "image/gif", "text/plain", None])
    def test_another_content_type_is_refused(self, http: httpx.Client, media_type: str | None) -> None:
        headers = {"Content-Type": media_type} if media_type else {}
        response = http.post("/score", content=JPEG, headers=headers)
        assert_problem(response, "unsupported-media-type")
        assert response.headers["accept"] == "application/json, multipart/form-data, image/png"

    def test_an_accept_without_json_is_refused(self, http: httpx.Client) -> None:
        headers = {"Content-Type": "image/png", "Accept": "image/png"}
        assert_problem(http.post("/score", content=png(), headers=headers), "not-acceptable")

    @pytest.mark.parametrize(
        ("files", "places"),
        [
            ([("images", png()), ("images", b"no image")], ["/images/1"]),
            ([("images", b"")], ["/images/0"]),
            ([("picture", png())], ["/picture"]),
            ([("images", png())] * 257, ["/images"]),
        ],
        ids=["no image", "empty", "another field", "too many"],
    )
    def test_wrong_files_are_named(self, http: httpx.Client, files: list[tuple[str, bytes]], places: list[str]) -> None:
        assert_problem(http.post("/score", files=files), "invalid-request", *places)

    def test_images_that_are_too_large_together_are_refused(self, http: httpx.Client) -> None:
        half = text(png(4096, 2048))
        assert http.post("/score", json={"images": [half, half]}).status_code == 200
        response = http.post("/score", json={"images": [half, half, text(png())]})
        assert_problem(response, "invalid-request", "/images/2")

    def test_a_field_that_is_no_file_is_named(self, http: httpx.Client) -> None:
        body = part("images", png(), "a.png") + part("images", png()) + b"--b--\r\n"
        headers = {"Content-Type": "multipart/form-data; boundary=b"}
        problem = assert_problem(http.post("/score", content=body, headers=headers), "invalid-request", "/images/1")
        assert "filename" in problem["detail"]

    def test_a_form_without_parts_is_named(self, http: httpx.Client) -> None:
        headers = {"Content-Type": "multipart/form-data; boundary=b"}
        assert_problem(http.post("/score", content=b"--b--\r\n", headers=headers), "invalid-request", "/images")

    @pytest.mark.parametrize(
        ("media_type", "body"),
        [
            ("multipart/form-data", b"--b--\r\n"),
            ("multipart/form-data; boundary=b", b"rubbish"),
            ("multipart/form-data; boundary=b", b"--b\r\nContent-Disposition: form-data\r\n\r\nx\r\n--b--\r\n"),
            ("multipart/form-data; boundary=b", b"--b\r\n\r\nx\r\n--b--\r\n"),
            ("multipart/form-data; boundary=b", b""),
        ],
    )
    def test_broken_multipart_is_refused(self, http: httpx.Client, media_type: str, body: bytes) -> None:
        response = http.post("/score", content=body, headers={"Content-Type": media_type})
        assert_problem(response, "malformed-request")

    @pytest.mark.parametrize(
        ("second", "place"),
        [
            (lambda: part("images", png(), "b.png")[:-20], "in part 2"),
            (lambda: part("images", png(), "b.png"), "in part 2"),
            (lambda: part("labels", b"true"), "in part 2"),
            (lambda: b"--b\r\nContent-Disp", "in part 2"),
            (lambda: b"--b\r\n", "in part 2"),
            (lambda: b"--b-", "in part 1"),
            (lambda: b"", "in part 1"),
        ],
        ids=["in a file", "at its end", "after a field", "in a header", "at a boundary", "in the last one", "at once"],
    )
    def test_multipart_that_breaks_off_is_refused(
        self, http: httpx.Client, second: Callable[[], bytes], place: str
    ) -> None:
        body = part("images", png(), "a.png") + second()
        response = http.post("/score", content=body, headers={"Content-Type": "multipart/form-data; boundary=b"})
        assert f"breaks off {place}" in assert_problem(response, "malformed-request")["detail"]


class TestRoutes:
    @pytest.mark.parametrize("path", ["/nothing", "/Generate", "/problems/unheard-of", "/%00"])
    def test_other_paths_are_not_found(self, http: httpx.Client, path: str) -> None:
        assert_problem(http.get(path), "not-found")
