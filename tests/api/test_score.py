"""Uploaded images: POST /score, what is decoded, how ink is found, and how a digit is fitted as MNIST's were."""

import base64
import zlib
from collections.abc import Callable
from functools import partial
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image, ImageDraw

from api.digits.containers import MOST_SCANS, complaint
from api.digits.fit import Digit, Fit, ImageError, read_digit
from benchmarks.drawings import KINDS, drawn
from tests.support.gateways import assert_problem
from tests.support.pictures import Pixels, base64_of, chunk, pixels_of, png_of, saved

PLAIN = {"probability", "logit", "verdict", "fitted", "ink", "polarity", "box", "reason"}


@pytest.fixture(scope="module")
def digits(http: httpx.Client) -> list[bytes]:
    return [http.get(f"/digits/{seed}.png").content for seed in range(3)]


def post(http: httpx.Client, images: list[bytes], **options: object) -> httpx.Response:
    return http.post("/score", json={"images": list(map(base64_of, images)), **options})


def scores(response: httpx.Response) -> list[dict[str, Any]]:
    assert response.status_code == 200, response.text
    answer = response.json()
    assert (answer["model"], answer["version"]) == ("discriminator", 4)
    return list(answer["scores"])


def test_a_score_is_a_logit_its_probability_and_a_verdict(http: httpx.Client, digits: list[bytes]) -> None:
    for score in scores(post(http, digits)):
        assert set(score) == PLAIN
        assert (score["ink"], score["polarity"], score["box"], score["reason"]) == (True, None, None, None)
        assert 0 <= score["probability"] <= 1
        assert score["verdict"] == ("real" if score["probability"] > 0.5 else "fake")
        assert score["fitted"] is False


def test_json_multipart_and_raw_give_the_same_scores(http: httpx.Client, digits: list[bytes]) -> None:
    logits = [score["logit"] for score in scores(post(http, digits))]
    urls = [f"data:image/png;base64,{base64_of(image)}" for image in digits]
    for parts in ([(f"{place}.png", image) for place, image in enumerate(digits)], [(None, url) for url in urls]):
        response = http.post("/score", files=[("images", part) for part in parts])
        assert [score["logit"] for score in scores(response)] == pytest.approx(logits, abs=1e-3)
    for image, logit in zip(digits, logits, strict=True):
        (raw,) = scores(http.post("/score", content=image, headers={"Content-Type": "image/png"}))
        assert raw["logit"] == pytest.approx(logit, abs=1e-3)


def test_as_many_as_allowed_are_scored_in_order(http: httpx.Client, digits: list[bytes]) -> None:
    many = [digits[place % 3] for place in range(256)]
    logits = [score["logit"] for score in scores(post(http, many))]
    assert len(logits) == 256
    assert logits[:3] == pytest.approx(logits[-4:-1], abs=1e-3)
    assert logits[0] != pytest.approx(logits[1])


@pytest.mark.parametrize("image", [saved(np.full((64, 64), 255, np.uint8)), saved(np.zeros((28, 28), np.uint8))])
def test_without_ink_there_is_no_verdict_and_no_digit_and_a_reason(http: httpx.Client, image: bytes) -> None:
    (score,) = scores(post(http, [image], labels=True))
    assert score["ink"] is False
    for name in ("verdict", "digit", "confidence", "digit_probabilities", "polarity", "box"):
        assert score[name] is None
    assert score["reason"] == "no ink was found in the image"


@pytest.fixture(scope="module")
def curated(http: httpx.Client) -> list[tuple[int, Pixels]]:
    made = http.post("/generate", json={"count": 20, "start": 0, "curated": True}).json()["images"]
    return [(one["digit"], pixels_of(base64.b64decode(one["png"]))) for one in made]


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_drawing_is_read_right(http: httpx.Client, curated: list[tuple[int, Pixels]], kind: str) -> None:
    random = np.random.default_rng(3)
    images = [saved(KINDS[kind](drawn(pixels, random), random)) for _, pixels in curated]
    found = scores(post(http, images, labels=True))
    assert sum(score["digit"] == digit for score, (digit, _) in zip(found, curated, strict=True)) >= 19
    assert all(score["ink"] and score["fitted"] and score["polarity"] and len(score["box"]) == 4 for score in found)


def test_options_are_query_parameters_members_and_form_fields(http: httpx.Client, digits: list[bytes]) -> None:
    query = "/score?fit=always&labels=true&fitted_images=true"
    options = {"fit": "always", "labels": True, "fitted_images": True}
    form = {name: str(value).lower() for name, value in options.items()}
    files = [("images", ("0.png", digits[0], "image/png"))]
    raw = partial(http.post, content=digits[0], headers={"Content-Type": "image/png"})
    for response in (
        raw(query),
        http.post(query, files=files),
        http.post("/score?fit=never", files=files, data=form),
        post(http, digits[:1], **options),
    ):
        (score,) = scores(response)
        assert set(score) == PLAIN | {"digit", "confidence", "digit_probabilities", "png"}
        assert score["fitted"] is True
    (plain,) = scores(http.post(query, files=files, data={"labels": "false", "fitted_images": "false"}))
    assert set(plain) == PLAIN
    assert_problem(raw("/score?fit=some"), "invalid-request", "fit")


def test_never_takes_28_by_28_gray_pixels_and_says_so(http: httpx.Client) -> None:
    noise = saved(np.random.default_rng(1).integers(0, 256, (28, 28), np.uint8))
    page = saved(np.full((30, 40), 255, np.uint8))
    assert scores(post(http, [noise], fit="never"))[0]["fitted"] is False
    response = post(http, [noise, page], fit="never")
    assert_problem(response, "invalid-request", "/images/1")
    assert "40×30 pixels; with fit=never, 28×28 gray and opaque pixels are needed" in response.text


@pytest.mark.parametrize(
    "write",
    [
        lambda text: f"data:image/png;base64,{text}",
        lambda text: f"DATA:image/png;name=a.png;base64,{text.replace('+', '%2B')}",
        lambda text: "\r\n".join(text[place : place + 76] for place in range(0, len(text), 76)) + "\n",
        lambda text: text.rstrip("="),
        lambda text: text.replace("+", "-").replace("/", "_"),
    ],
)
def test_base64_as_people_have_it(http: httpx.Client, digits: list[bytes], write: Callable[[str], str]) -> None:
    texts = [write(base64_of(image)) for image in digits]
    expected = [score["logit"] for score in scores(post(http, digits))]
    found = scores(http.post("/score", json={"images": texts}))
    assert [score["logit"] for score in found] == pytest.approx(expected, abs=1e-3)


def test_mnists_images_are_read_as_they_are(http: httpx.Client) -> None:
    """The generator's stand in for them; all of MNIST's 70,000 pass (``python -m benchmarks.drawings``)."""
    made = http.post("/generate", json={"count": 200, "start": 10_000, "labels": True}).json()["images"]
    body = {"images": [image["png"] for image in made], "labels": True}
    found = zip(made, scores(http.post("/score", json=body)), strict=True)
    kept = [(image, score) for image, score in found if not score["fitted"]]
    assert len(kept) >= 198, "a generated digit can be off the middle, or faint"
    for image, score in kept:
        assert score["digit"] == image["digit"]
        assert score["confidence"] == pytest.approx(image["confidence"], abs=1e-4)
        assert len(score["digit_probabilities"]) == 10
        assert sum(score["digit_probabilities"]) == pytest.approx(1, abs=1e-4)
        assert score["digit_probabilities"][score["digit"]] == score["confidence"]


def test_the_pixels_that_were_scored_are_given_back(http: httpx.Client, digits: list[bytes]) -> None:
    page = np.full((300, 200), 240, np.uint8)
    page[100:200, 90:110] = 20
    first = scores(post(http, [saved(page), digits[0]], fitted_images=True))
    pngs = [base64.b64decode(score["png"]) for score in first]
    fitted = pixels_of(pngs[0])
    assert fitted.shape == (28, 28)
    assert fitted[14, 14] == 255
    assert np.array_equal(pixels_of(pngs[1]), pixels_of(digits[0]))
    again = scores(post(http, pngs))
    assert [score["fitted"] for score in again] == [False, False]
    assert [score["logit"] for score in again] == pytest.approx([score["logit"] for score in first], abs=1e-3)


read = partial(read_digit, max_pixels=4096 * 4096)


def page(paper: int = 255, ink: int = 0) -> Pixels:
    """A sheet with a "7"-like shape, off the middle."""
    sheet = np.full((200, 160), paper, np.uint8)
    sheet[40:55, 60:130] = ink
    for row in range(55, 150):
        left = 120 - (row - 55) // 2
        sheet[row, left : left + 12] = ink
    return sheet


def digit_of(image: Image.Image | Pixels, fit: Fit = "always") -> Digit:
    return read(saved(image), fit=fit)


def fit(image: Image.Image | Pixels) -> Pixels:
    return digit_of(image).pixels


def assert_close(a: Pixels, b: Pixels, difference: float = 12) -> None:
    assert float(np.abs(a.astype(float) - b).mean()) < difference


def test_dark_on_light_becomes_light_on_dark_in_20_pixels_centred_by_mass() -> None:
    fitted = fit(page())
    assert fitted.shape == (28, 28)
    assert fitted[0].max() == 0
    rows = np.flatnonzero(fitted.any(axis=1))
    assert rows[-1] - rows[0] + 1 == 20
    assert fitted.max() > 240
    mass = fitted.astype(float)
    assert [mass.sum(axis) @ np.arange(28) / mass.sum() for axis in (0, 1)] == pytest.approx([14, 14], abs=0.51)


def test_proportions_are_kept() -> None:
    wide = np.zeros((100, 400), np.uint8)
    wide[40:60, 100:300] = 255
    fitted = fit(wide)
    assert np.flatnonzero(fitted.any(axis=0)).size == 20
    assert np.flatnonzero(fitted.max(axis=1) > 64).size == 2


class TestAsItIs:
    """``auto`` keeps 28×28 pixels that are as MNIST's; ``always`` and ``never`` say it for every image."""

    @pytest.fixture
    def digit(self) -> Pixels:
        return fit(page())

    @pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA", "P", "1"])
    def test_gray_pixels_in_any_mode(self, digit: Pixels, mode: str) -> None:
        image = Image.fromarray(digit).convert(mode, dither=Image.Dither.NONE)
        found = digit_of(image, "auto")
        assert np.array_equal(found.pixels, np.asarray(image.convert("L")))
        assert (found.fitted, found.ink, found.polarity, found.box) == (False, True, None, None)

    @pytest.mark.parametrize("change", [lambda d: 255 - d, lambda d: np.roll(d, 4, axis=1), lambda d: d // 2])
    def test_28_by_28_that_mnist_would_not_have_is_fitted(self, digit: Pixels, change: Any) -> None:
        """Black on white, off the middle, or faint: read like the same drawing of any other size."""
        found = digit_of(change(digit), "auto")
        assert found.fitted
        assert_close(found.pixels, digit, 14)

    def test_colour_transparency_and_another_size_are_fitted(self, digit: Pixels) -> None:
        layer = Image.fromarray(digit).convert("LA")
        layer.putpixel((3, 3), (9, 254))
        for image in (Image.new("RGB", (28, 28), "red"), layer, Image.new("L", (29, 28))):
            assert digit_of(image, "auto").fitted
            with pytest.raises(ImageError, match="with fit=never, 28×28 gray"):
                digit_of(image, "never")


def shadow() -> Pixels:
    shaded = page(paper=220, ink=30)
    shaded[:, :100] = np.where(shaded[:, :100] > 100, 140, 30)
    return shaded


def remains_of_lines() -> Image.Image:
    image = Image.fromarray(page())
    draw = ImageDraw.Draw(image)
    draw.line((0, 2, 159, 5), fill=0, width=2)
    draw.line((154, 0, 157, 199), fill=0, width=3)
    draw.line((20, 194, 120, 196), fill=0, width=2)
    return image


def squared_paper() -> Pixels:
    ruled = np.full_like(page(), 255)
    ruled[3::20] = ruled[:, 5::20] = 90
    squared: Pixels = np.minimum(ruled, page())
    return squared


def ruled_askew() -> Pixels:
    lines = np.full((400, 400), 255, np.uint8)
    lines[::24] = lines[1::24] = 90
    askew = np.asarray(Image.fromarray(lines).rotate(2, Image.Resampling.BILINEAR))[100:300, 100:260]
    ruled: Pixels = np.minimum(askew, page())
    return ruled


def sheet_on_a_table() -> Image.Image:
    sheet = Image.fromarray(page(paper=235, ink=30)).convert("RGB")
    table = Image.new("RGB", (260, 300), (70, 50, 40))
    askew = sheet.rotate(4, Image.Resampling.BILINEAR, expand=True)
    table.paste(askew, (45, 50), Image.new("L", sheet.size, 255).rotate(4, expand=True))
    return table


def cell(**how: Any) -> Image.Image:
    image = Image.fromarray(page())
    ImageDraw.Draw(image).rounded_rectangle((8, 10, 150, 190), outline=60, **how)
    return image


def coloured(paper: str, ink: str) -> Image.Image:
    image = Image.new("RGB", (160, 200), paper)
    image.paste(ink, mask=Image.fromarray(255 - page()))
    return image


class TestInk:
    """What the kinds of drawing above don't have: each is read as the plain drawing."""

    @pytest.mark.parametrize(
        ("image", "difference"),
        [
            pytest.param(shadow(), 6, id="a shadow with a hard edge"),
            pytest.param(remains_of_lines(), 3, id="remains of lines along the edges"),
            pytest.param(squared_paper(), 8, id="squared paper"),
            pytest.param(ruled_askew(), 12, id="ruled paper askew"),
            pytest.param(sheet_on_a_table(), 20, id="a sheet on a table"),
            pytest.param(cell(width=3).rotate(3, fillcolor=255), 20, id="a form's cell askew"),
            pytest.param(cell(width=2, radius=25), 3, id="a cell with round corners"),
            pytest.param(Image.fromarray(page(230, 20).astype(np.uint16) << 2), 3, id="10 bits of 16"),
            pytest.param(Image.fromarray(page(230, 20).astype(np.uint16) << 8), 3, id="16 bits"),
            pytest.param(coloured("white", "yellow"), 3, id="yellow on white"),
            pytest.param(coloured("white", "#fff3b0"), 3, id="cream on white"),
            pytest.param(coloured("black", "blue"), 3, id="blue on black"),
            pytest.param(coloured("#00a000", "red"), 3, id="red on green"),
        ],
    )
    def test_ink_is_found(self, image: Image.Image | Pixels, difference: float) -> None:
        assert_close(fit(image), fit(page()), difference)

    def test_a_digit_like_a_box_is_no_box(self) -> None:
        """An angular zero has nothing inside, and an angular eight only a bar."""
        zero = np.full((200, 160), 255, np.uint8)
        zero[30:170, 40:120] = 0
        zero[45:155, 55:105] = 255
        eight = zero.copy()
        eight[95:108, 55:105] = 0
        one = np.full((200, 160), 255, np.uint8)
        one[30:170, 78:82] = 0
        assert digit_of(one).box == pytest.approx((78, 30, 82, 170), abs=4)
        for digit in (zero, eight):
            found = digit_of(digit)
            assert found.box == pytest.approx((40, 30, 120, 170), abs=4)
            assert found.pixels[14 if digit is eight else 5, 14] > 150

    @pytest.mark.parametrize(("paper", "ink"), [(127, 0), (128, 255)])
    def test_the_polarity_and_the_box_are_told(self, paper: int, ink: int) -> None:
        found = digit_of(page(paper=paper, ink=ink))
        assert found.polarity == ("dark-on-light" if ink < paper else "light-on-dark")
        assert found.box == pytest.approx((60, 40, 132, 150), abs=14)

    def test_a_box_is_in_pixels_of_the_photograph(self) -> None:
        photograph = Image.fromarray(page().repeat(12, axis=0).repeat(12, axis=1))
        found = read(saved(photograph, "JPEG"))
        assert found.sent_pixels == 2400 * 1920
        assert found.box == pytest.approx((60 * 12, 40 * 12, 132 * 12, 150 * 12), abs=14 * 12)

    def test_a_thin_pen_is_thickened(self) -> None:
        image = Image.new("L", (1000, 1000), 250)
        ImageDraw.Draw(image).line([(300, 250), (700, 250), (450, 800)], fill=20, width=6)
        fitted = fit(image)
        assert np.median(fitted[fitted > 50]) > 180
        assert_close(fitted, fit(page()), 30)

    def test_a_page_with_see_through_margins_round_corners_and_a_shadow(self) -> None:
        sheet = Image.fromarray(page()).convert("RGBA")
        corners = Image.new("L", sheet.size)
        ImageDraw.Draw(corners).rounded_rectangle((0, 0, 159, 199), 24, fill=255)
        window = Image.new("RGBA", (260, 300))
        ImageDraw.Draw(window).rounded_rectangle((55, 60, 215, 260), 24, fill=(0, 0, 0, 90))
        window.paste(sheet, (45, 45), corners)
        found = digit_of(window)
        assert_close(found.pixels, fit(page()), 3)
        assert found.box is not None
        assert found.box[0] >= 45 + 55

    def test_paper_dust_and_noise_are_no_ink(self) -> None:
        dust = np.full((1000, 1000), 255, np.uint8)
        dust[10::330, 10::330] = 0
        noise = [np.random.default_rng(1).normal(128, spread, (300, 300)) for spread in (1, 5, 20, 80)]
        blank = [np.full((50, 60), shade, np.uint8) for shade in (0, 130, 255)]
        for image in (dust, *blank, *(np.clip(one, 0, 255).astype(np.uint8) for one in noise)):
            found = digit_of(image)
            assert (found.ink, found.polarity, found.box) == (False, None, None)
            assert not found.pixels.any()
        assert not digit_of(Image.new("RGBA", (60, 60))).ink


def deep(colour: int, channels: int) -> bytes:
    """A PNG of 16 bits a channel. Pillow writes only gray ones."""
    pixels = page().astype(">u2") * 257
    rows = b"".join(b"\0" + row.repeat(channels).astype(">u2").tobytes() for row in pixels)
    return png_of(pixels.shape[1], pixels.shape[0], rows, bits=16, colour=colour)


def cameras_jpeg() -> bytes:
    """A photograph with a smaller picture behind it."""
    photograph = Image.fromarray(page()).convert("RGB")
    return saved(photograph, "MPO", save_all=True, append_images=[Image.new("RGB", (80, 100))])


@pytest.mark.parametrize(
    "file",
    [
        *(pytest.param(saved(page(), kind), id=kind) for kind in ("PNG", "JPEG", "WEBP")),
        pytest.param(saved(Image.fromarray(page()).convert("P")), id="palette"),
        pytest.param(saved(Image.fromarray(page()).convert("P"), transparency=255), id="see-through palette"),
        pytest.param(saved(Image.fromarray(page()).convert("CMYK"), "JPEG"), id="CMYK"),
        *(pytest.param(deep(*kind), id=f"16 bits, {kind}") for kind in ((0, 1), (2, 3), (4, 2), (6, 4))),
        pytest.param(saved(page(), icc_profile=bytes(500)), id="with a profile"),
        pytest.param(cameras_jpeg(), id="MPO"),
        *(saved(Image.fromarray(np.dstack([np.full_like(page(), ink), 255 - page()]), "LA")) for ink in (0, 255)),
    ],
)
def test_files_hold_the_same_drawing_in_many_ways(file: bytes) -> None:
    assert_close(read(file).pixels, fit(page()))


UNDO = ["FLIP_LEFT_RIGHT", "ROTATE_180", "FLIP_TOP_BOTTOM", "TRANSPOSE", "ROTATE_90", "TRANSVERSE", "ROTATE_270"]
"""How Pillow names what undoes each of EXIF's orientations from 2 on."""


@pytest.mark.parametrize(("orientation", "undo"), [*enumerate([None, *UNDO], 1)])
def test_turned_by_exif(orientation: int, undo: str | None) -> None:
    image = Image.fromarray(page())
    exif = Image.Exif()
    exif[0x0112] = orientation
    turned = image.transpose(Image.Transpose[undo]) if undo else image
    assert np.array_equal(read(saved(turned, exif=exif)).pixels, fit(page()))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_a_file_that_is_cut_off_anywhere_is_refused(kind: str) -> None:
    noise = Image.fromarray(np.random.default_rng(3).integers(0, 256, (64, 64), np.uint8))
    whole = saved(noise, kind)
    assert {complaint(whole[:length]) for length in range(len(whole))} == {""}, "the decoder refuses it"
    for length in range(0, len(whole) * 9 // 10, max(1, len(whole) // 60)):
        with pytest.raises(ImageError):
            read(whole[:length])


LARGEST_BODY = 8 * 2**20


def png(before: bytes = b"", after: bytes = b"") -> bytes:
    file = png_of(28, 28, bytes(29 * 28), before=before)
    return file[:-12] + after + file[-12:]


def jpeg(before: bytes = b"") -> bytes:
    file = saved(Image.new("L", (28, 28)), "JPEG")
    return file[:2] + before + file[2:]


def progressive(scans: int) -> bytes:
    """16 million pixels, passed over so often: a few bytes each time."""
    whole = saved(Image.new("L", (4096, 4096)), "JPEG", progressive=True)
    starts = [place for place in range(len(whole)) if whole.startswith(b"\xff\xda", place)]
    return whole[: starts[1]] + whole[starts[1] : starts[2]] * scans + whole[starts[1] :]


def filled(piece: bytes) -> bytes:
    return piece * ((LARGEST_BODY - 2000) // len(piece))


MEBIBYTE = zlib.compress(bytes(2**20 - 1), 9)


@pytest.mark.parametrize(
    ("file", "words"),
    [
        pytest.param(png(filled(chunk(b"abCd"))), "PNG chunks", id="chunks before the pixels"),
        pytest.param(png(b"", filled(chunk(b"abCd"))), "PNG chunks", id="chunks after the pixels"),
        pytest.param(png(filled(chunk(b"IDAT"))), "PNG chunks", id="pixels in crumbs"),
        pytest.param(png(filled(chunk(b"iCCP", b"a\0\0" + MEBIBYTE))), "more than one colour profile", id="profiles"),
        pytest.param(png(filled(chunk(b"zTXt", b"a\0\0" + MEBIBYTE))), "damaged|PNG chunks", id="compressed text"),
        pytest.param(jpeg(filled(b"\xff\xfe\0\2")), "JPEG segments", id="comments"),
        pytest.param(jpeg(b"\xff" * (LARGEST_BODY - 2000)), "JPEG segments", id="filling"),
        pytest.param(jpeg(b"\0" * (LARGEST_BODY - 2000)), "JPEG segments", id="junk"),
        pytest.param(jpeg(b"\xff\xf0\xff\xff" + filled(b"\xff\xfe\0\2")[:-4]), "JPEG segments", id="a jump over them"),
        pytest.param(progressive(20_000), f"more than {MOST_SCANS} JPEG scans", id="scans"),
    ],
)
def test_much_work_in_few_pixels_is_refused_before_it_is_done(file: bytes, words: str) -> None:
    """Each takes from a second and a half to minutes of decoding, but for the text, which Pillow limits itself."""
    assert len(file) <= LARGEST_BODY
    with pytest.raises(ImageError, match=words):
        read(file)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("side", [1, 28, 1500])
def test_nothing_speaks_against_ordinary_images(kind: str, side: int) -> None:
    pixels = np.random.default_rng(side).integers(0, 256, (side, side, 3), np.uint8)
    for options in ({}, {"progressive": True}) if kind == "JPEG" else ({}, {"compress_level": 0}):
        assert complaint(saved(pixels, kind, icc_profile=bytes(70_000), **options)) == ""
