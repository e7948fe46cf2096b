"""Uploaded images: what is decoded, what is refused, how ink is found, and how a digit is fitted as MNIST's were."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from sklearn.datasets import load_digits

from api.digits.fit import Digit, Fit, ImageError, read_digit
from api.digits.ink import connected_parts
from serving.model_server.saved_model import load
from serving.pretrained import MODELS_DIR
from tests.support.pictures import png_of, saved

Pixels = NDArray[np.uint8]
MAX_PIXELS = 512 * 512


def page(height: int = 200, width: int = 160, paper: int = 255, ink: int = 0) -> Pixels:
    """A sheet with a "7"-like shape, off the middle."""
    sheet = np.full((height, width), paper, np.uint8)
    sheet[40:55, 60:130] = ink
    for row in range(55, 150):
        left = 120 - (row - 55) // 2
        sheet[row, left : left + 12] = ink
    return sheet


def centre(pixels: Pixels) -> tuple[float, float]:
    mass = pixels.astype(float)
    index = np.arange(28)
    return (mass.sum(1) @ index) / mass.sum(), (mass.sum(0) @ index) / mass.sum()


def read(file: bytes) -> Pixels:
    return read_digit(file, max_pixels=MAX_PIXELS).pixels


def digit_of(image: Image.Image | Pixels, fit: Fit = "always") -> Digit:
    return read_digit(saved(image), max_pixels=MAX_PIXELS * 16, fit=fit)


def fit(image: Image.Image | Pixels) -> Pixels:
    return digit_of(image).pixels


def close(a: Pixels, b: Pixels, difference: float = 12) -> bool:
    return float(np.abs(a.astype(float) - b).mean()) < difference


def test_dark_on_light_becomes_light_on_dark_in_20_pixels_centred_by_mass() -> None:
    fitted = fit(page())
    assert fitted.shape == (28, 28)
    assert fitted[0].max() == 0
    rows = np.flatnonzero(fitted.any(axis=1))
    assert rows[-1] - rows[0] + 1 == 20
    assert fitted.max() > 240
    assert centre(fitted) == pytest.approx((14, 14), abs=0.51)


def test_proportions_are_kept() -> None:
    wide = np.zeros((100, 400), np.uint8)
    wide[40:60, 100:300] = 255
    fitted = fit(wide)
    assert np.flatnonzero(fitted.any(axis=0)).size == 20
    assert np.flatnonzero(fitted.max(axis=1) > 64).size == 2


@pytest.mark.parametrize("paper", [0, 255, 130])
def test_a_page_without_ink_comes_out_black(paper: int) -> None:
    assert not fit(np.full((50, 60), paper, np.uint8)).any()


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 1), (2, 2), (27, 29)])
def test_any_size_fits(shape: tuple[int, int]) -> None:
    ink = np.random.default_rng(1).integers(0, 256, shape, np.uint8)
    assert fit(ink).shape == (28, 28)


def test_enlarged_digits_come_back() -> None:
    """Real handwriting (scikit-learn's digits), fitted from a large page and from a small one."""
    for digit in (load_digits().images[:50] * 15.9).astype(np.uint8):
        small = fit(np.pad(np.asarray(Image.fromarray(digit).resize((64, 64))), 20))
        large = fit(np.pad(np.asarray(Image.fromarray(digit).resize((400, 400))), ((30, 90), (100, 10))))
        assert close(small, large, 18)


class TestAsItIs:
    """``auto`` keeps 28×28 pixels that are as MNIST's; ``always`` and ``never`` say it for every image."""

    @pytest.fixture
    def digit(self) -> Pixels:
        return fit(page())

    @pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA", "P"])
    def test_gray_pixels_in_any_mode(self, digit: Pixels, mode: str) -> None:
        found = digit_of(Image.fromarray(digit).convert(mode), "auto")
        assert np.array_equal(found.pixels, digit)
        assert (found.fitted, found.ink, found.polarity, found.box) == (False, True, None, None)

    def test_black_and_white(self, digit: Pixels) -> None:
        bilevel = Image.fromarray(digit).convert("1", dither=Image.Dither.NONE)
        found = digit_of(bilevel, "auto")
        assert np.array_equal(found.pixels, np.asarray(bilevel.convert("L")))
        assert not found.fitted

    @pytest.mark.parametrize("change", [lambda d: 255 - d, lambda d: np.roll(d, 4, axis=1), lambda d: d // 2])
    def test_28_by_28_that_mnist_would_not_have_is_fitted(self, digit: Pixels, change: Any) -> None:
        """Black on white, off the middle, or faint: read like the same drawing of any other size."""
        found = digit_of(change(digit), "auto")
        assert found.fitted
        assert close(found.pixels, digit, 14)

    def test_colour_transparency_and_another_size_are_fitted(self, digit: Pixels) -> None:
        layer = Image.fromarray(digit).convert("LA")
        layer.putpixel((3, 3), (9, 254))
        for image in (Image.new("RGB", (28, 28), "red"), layer, Image.new("L", (29, 28))):
            assert digit_of(image, "auto").fitted
            with pytest.raises(ImageError, match="with fit=never, 28×28 gray"):
                digit_of(image, "never")

    def test_always_and_never(self, digit: Pixels) -> None:
        noise = np.random.default_rng(7).integers(0, 256, (28, 28), np.uint8)
        assert np.array_equal(digit_of(noise, "never").pixels, noise)
        assert not digit_of(noise, "never").fitted
        assert digit_of(digit, "always").fitted

    def test_mnists_images_are_kept(self) -> None:
        """The generator's stand in for them; all of MNIST's 70,000 pass (``python -m benchmarks.drawings``)."""
        generator = load(MODELS_DIR / "generator" / "1")
        noise = np.random.default_rng(0).standard_normal((200, 100)).astype(np.float32)
        for pixels in generator.run("serving_default", {"noise": noise})["images"][..., 0]:
            assert np.array_equal(digit_of(pixels, "auto").pixels, pixels)


class TestInk:
    """The kinds of paper, pens and light that people's drawings come with: each is read as the plain drawing."""

    @pytest.mark.parametrize(("paper", "ink"), [(60, 0), (127, 0), (128, 0), (255, 200), (128, 255), (200, 255)])
    def test_any_gray_paper(self, paper: int, ink: int) -> None:
        found = digit_of(page(paper=paper, ink=ink))
        assert close(found.pixels, fit(page()), 3)
        assert found.polarity == ("dark-on-light" if ink < paper else "light-on-dark")
        assert found.box == pytest.approx((60, 40, 132, 150), abs=14)

    @pytest.mark.parametrize("ink", [0, 255])
    @pytest.mark.parametrize("direction", range(4))
    def test_a_gradient_of_100_levels(self, ink: int, direction: int) -> None:
        light = np.linspace(0, 100, 200)[:, np.newaxis] + np.zeros(160)
        light = light[:: 1 if direction % 2 else -1] if direction < 2 else light[:160, :160].T
        sheet = page()[: light.shape[0], : light.shape[1]]
        lit = np.where(sheet == 0, ink, light + (155 if ink == 0 else 0)).astype(np.uint8)
        assert close(fit(lit), fit(sheet), 6)

    def test_a_shadow_with_a_hard_edge(self) -> None:
        shaded = page(paper=220, ink=30)
        shaded[:, :100] = np.where(shaded[:, :100] > 100, 140, 30)
        assert close(fit(shaded), fit(page()), 6)

    @pytest.mark.parametrize("width", [1, 4, 10])
    @pytest.mark.parametrize("shade", [0, 90, 255])
    @pytest.mark.parametrize(("paper", "ink"), [(230, 20), (30, 240)])
    def test_a_frame(self, width: int, shade: int, paper: int, ink: int) -> None:
        sheet = page(paper=paper, ink=ink)
        framed = np.full_like(sheet, shade)
        framed[width:-width, width:-width] = sheet[width:-width, width:-width]
        assert close(fit(framed), fit(page()), 4)

    def test_remains_of_lines_along_the_edges(self) -> None:
        image = Image.fromarray(page())
        draw = ImageDraw.Draw(image)
        draw.line((0, 2, 159, 5), fill=0, width=2)
        draw.line((154, 0, 157, 199), fill=0, width=3)
        draw.line((20, 194, 120, 196), fill=0, width=2)
        assert close(fit(image), fit(page()), 3)

    @pytest.mark.parametrize("shade", [200, 90])
    @pytest.mark.parametrize("squared", [False, True])
    def test_ruled_paper(self, shade: int, squared: bool) -> None:
        ruled = np.full_like(page(), 255)
        ruled[3::20] = shade
        if squared:
            ruled[:, 5::20] = shade
        assert close(fit(np.minimum(ruled, page())), fit(page()), 8)

    def test_ruled_paper_askew(self) -> None:
        lines = np.full((400, 400), 255, np.uint8)
        lines[::24] = lines[1::24] = 90
        askew = np.asarray(Image.fromarray(lines).rotate(2, Image.Resampling.BILINEAR))[100:300, 100:260]
        assert close(fit(np.minimum(askew, page())), fit(page()), 12)

    def test_specks(self) -> None:
        sheet = page()
        for y, x in ((3, 5), (190, 30), (180, 150), (20, 140), (100, 10)):
            sheet[y : y + 3, x : x + 3] = 0
        assert close(fit(sheet), fit(page()), 2)

    def test_a_thin_pen_is_thickened(self) -> None:
        image = Image.new("L", (1000, 1000), 250)
        ImageDraw.Draw(image).line([(300, 250), (700, 250), (450, 800)], fill=20, width=6)
        fitted = fit(image)
        assert np.median(fitted[fitted > 50]) > 180
        assert close(fitted, fit(page()), 30)

    @pytest.mark.parametrize(
        ("paper", "ink"),
        [("white", "yellow"), ("black", "blue"), ("white", "#fff3b0"), ("red", "blue"), ("#00a000", "red")],
    )
    def test_colours(self, paper: str, ink: str) -> None:
        image = Image.new("RGB", (160, 200), paper)
        image.paste(ink, mask=Image.fromarray(255 - page()))
        assert close(fit(image), fit(page()), 3)

    def test_a_sheet_on_a_table(self) -> None:
        sheet = Image.fromarray(page(paper=235, ink=30)).convert("RGB")
        table = Image.new("RGB", (260, 300), (70, 50, 40))
        askew = sheet.rotate(4, Image.Resampling.BILINEAR, expand=True)
        table.paste(askew, (45, 50), Image.new("L", sheet.size, 255).rotate(4, expand=True))
        assert close(fit(table), fit(sheet.rotate(4, fillcolor="white")), 12)

    def test_a_page_with_see_through_margins_round_corners_and_a_shadow(self) -> None:
        sheet = Image.fromarray(page()).convert("RGBA")
        corners = Image.new("L", sheet.size)
        ImageDraw.Draw(corners).rounded_rectangle((0, 0, 159, 199), 24, fill=255)
        window = Image.new("RGBA", (260, 300))
        ImageDraw.Draw(window).rounded_rectangle((55, 60, 215, 260), 24, fill=(0, 0, 0, 90))
        window.paste(sheet, (45, 45), corners)
        found = digit_of(window)
        assert close(found.pixels, fit(page()), 3)
        assert found.box is not None
        assert found.box[0] >= 45 + 55

    @pytest.mark.parametrize("bits", [10, 12, 16])
    def test_deep_files(self, bits: int) -> None:
        deep = page(paper=230, ink=20).astype(np.uint16) << (bits - 8)
        assert close(fit(Image.fromarray(deep)), fit(page()), 3)

    def test_a_box_is_in_pixels_of_the_photograph(self) -> None:
        photograph = Image.fromarray(page().repeat(12, axis=0).repeat(12, axis=1))
        found = read_digit(saved(photograph, "JPEG"), max_pixels=10**7)
        assert found.sent_pixels == 2400 * 1920
        assert found.box == pytest.approx((60 * 12, 40 * 12, 132 * 12, 150 * 12), abs=14 * 12)

    @pytest.mark.parametrize("step", [980, 330])
    def test_dust_is_no_ink(self, step: int) -> None:
        dust = np.full((1000, 1000), 255, np.uint8)
        dust[10::step, 10::step] = 0
        found = digit_of(dust)
        assert (found.ink, found.polarity, found.box) == (False, None, None)
        assert not found.pixels.any()

    @pytest.mark.parametrize("spread", [1, 5, 20, 80])
    def test_noise_is_no_ink(self, spread: int) -> None:
        noise = np.random.default_rng(1).normal(128, spread, (300, 300))
        assert not digit_of(np.clip(noise, 0, 255).astype(np.uint8)).ink

    def test_parts_touch_at_corners_too(self) -> None:
        mask = np.array([[1, 0, 0, 1, 0], [0, 1, 0, 1, 0], [0, 0, 0, 1, 1], [1, 1, 0, 0, 0]], np.bool_)
        parts = connected_parts(mask)
        assert sorted(parts.area.tolist()) == [2, 2, 4]
        right = parts.label[0, 3]
        assert (parts.top[right], parts.bottom[right], parts.left[right], parts.right[right]) == (0, 3, 3, 5)


class TestModes:
    """The same drawing in all the ways that files have of holding it."""

    @pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
    def test_formats(self, kind: str) -> None:
        assert close(read(saved(page(), kind)), fit(page()))

    def test_a_palette(self) -> None:
        assert close(read(saved(Image.fromarray(page()).convert("P"))), fit(page()))

    def test_cmyk(self) -> None:
        assert close(read(saved(Image.fromarray(page()).convert("CMYK"), "JPEG")), fit(page()))

    @pytest.mark.parametrize(("colour", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)], ids=["L", "RGB", "LA", "RGBA"])
    def test_16_bits_of_each_channel(self, colour: int, channels: int) -> None:
        """Pillow writes none of these but the first."""
        deep = page().astype(">u2") * 257
        rows = b"".join(b"\0" + row.repeat(channels).astype(">u2").tobytes() for row in deep)
        assert close(read(png_of(deep.shape[1], deep.shape[0], rows, bits=16, colour=colour)), fit(page()))

    def test_a_palette_with_a_colour_to_see_through(self) -> None:
        see_through = saved(Image.fromarray(page()).convert("P"), transparency=255)
        assert close(read(see_through), fit(page()))

    def test_with_a_profile(self) -> None:
        assert close(read(saved(page(), icc_profile=bytes(500))), fit(page()))

    def test_a_cameras_jpeg_with_a_smaller_picture_behind(self) -> None:
        photograph = Image.fromarray(page()).convert("RGB")
        preview = Image.new("RGB", (80, 100))
        assert close(read(saved(photograph, "MPO", save_all=True, append_images=[preview])), fit(page()))

    @pytest.mark.parametrize("ink", [0, 255])
    def test_ink_on_nothing(self, ink: int) -> None:
        """A drawing program's layer: all transparent but for the strokes."""
        drawn = 255 - page()
        layer = np.dstack([np.full_like(drawn, ink), drawn])
        assert close(read(saved(Image.fromarray(layer, "LA"))), fit(page()), 3)

    def test_nothing_at_all(self) -> None:
        assert not read(saved(Image.new("RGBA", (60, 60)))).any()

    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_turned_by_exif(self, orientation: int) -> None:
        undo = {
            2: Image.Transpose.FLIP_LEFT_RIGHT,
            3: Image.Transpose.ROTATE_180,
            4: Image.Transpose.FLIP_TOP_BOTTOM,
            5: Image.Transpose.TRANSPOSE,
            6: Image.Transpose.ROTATE_90,
            7: Image.Transpose.TRANSVERSE,
            8: Image.Transpose.ROTATE_270,
        }
        image = Image.fromarray(page())
        if orientation in undo:
            image = image.transpose(undo[orientation])
        exif = Image.Exif()
        exif[0x0112] = orientation
        assert np.array_equal(read(saved(image, exif=exif)), fit(page()))


class TestRefused:
    @pytest.mark.parametrize("kind", ["GIF", "BMP", "TIFF", "PPM", "ICO", "TGA"])
    def test_other_formats(self, kind: str) -> None:
        with pytest.raises(ImageError, match="not an image in PNG or JPEG or WEBP format"):
            read(saved(page(), kind))

    def test_a_format_that_is_not_wanted_here(self) -> None:
        jpeg = saved(page(), "JPEG")
        with pytest.raises(ImageError, match="not an image in PNG format"):
            read_digit(jpeg, max_pixels=MAX_PIXELS, formats=("PNG",))

    @pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
    def test_truncated_anywhere(self, kind: str) -> None:
        noise = Image.fromarray(np.random.default_rng(3).integers(0, 256, (64, 64), np.uint8))
        whole = saved(noise, kind)
        for length in range(0, len(whole) * 9 // 10, max(1, len(whole) // 60)):
            with pytest.raises(ImageError):
                read(whole[:length])

    def test_too_many_pixels(self) -> None:
        with pytest.raises(ImageError, match="513×512 pixels; 262144 at most"):
            read(saved(Image.new("L", (513, 512))))

    def test_animated(self) -> None:
        frames = [Image.new("L", (28, 28), shade) for shade in (0, 99)]
        for kind in ("PNG", "WEBP"):
            with pytest.raises(ImageError, match="animated"):
                read(saved(frames[0], kind, save_all=True, append_images=frames[1:]))
