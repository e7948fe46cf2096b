"""Uploaded images: what is decoded, what is refused, and how a digit is fitted as MNIST's were."""

import contextlib
import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from api.fit import ImageError, fit, read_digit

Pixels = NDArray[np.uint8]
MAX_PIXELS = 512 * 512


def saved(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def png_of(*chunks: tuple[bytes, bytes]) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in chunks
    )


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


def test_light_on_dark_comes_out_the_same() -> None:
    assert np.array_equal(fit(page()), fit(page(paper=0, ink=255)))


def test_faint_ink_on_gray_paper_comes_out_almost_the_same() -> None:
    assert close(fit(page(paper=200, ink=90)), fit(page()), 3)


def test_proportions_are_kept() -> None:
    wide = np.zeros((100, 400), np.uint8)
    wide[40:60, 100:300] = 255
    fitted = fit(wide)
    assert np.flatnonzero(fitted.any(axis=0)).size == 20
    assert np.flatnonzero(fitted.any(axis=1)).size == 2


@pytest.mark.parametrize("paper", [0, 255, 130])
def test_a_page_without_ink_comes_out_black(paper: int) -> None:
    assert not fit(np.full((50, 60), paper, np.uint8)).any()


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 1), (2, 2), (27, 29)])
def test_any_size_fits(shape: tuple[int, int]) -> None:
    ink = np.random.default_rng(1).integers(0, 256, shape, np.uint8)
    assert fit(ink).shape == (28, 28)


def test_enlarged_digits_come_back(digits_8x8: Pixels) -> None:
    """Real handwriting (scikit-learn's digits), fitted from a large page and from a small one."""
    for digit in digits_8x8:
        small = fit(np.pad(np.asarray(Image.fromarray(digit).resize((64, 64))), 20))
        large = fit(np.pad(np.asarray(Image.fromarray(digit).resize((400, 400))), ((30, 90), (100, 10))))
        assert close(small, large)


@pytest.fixture(scope="module")
def digits_8x8() -> Pixels:
    from sklearn.datasets import load_digits

    scaled: Pixels = (load_digits().images[:50] * 15.9).astype(np.uint8)
    return scaled


class TestAsItIs:
    """28×28 pixels without colour and transparency are nobody's to change."""

    @pytest.fixture
    def digit(self) -> Pixels:
        return np.random.default_rng(7).integers(0, 256, (28, 28), np.uint8)

    @pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA"])
    def test_gray_pixels_in_any_mode(self, digit: Pixels, mode: str) -> None:
        found = read_digit(saved(Image.fromarray(digit).convert(mode)), max_pixels=MAX_PIXELS)
        assert np.array_equal(found.pixels, digit)
        assert not found.fitted

    def test_black_and_white(self, digit: Pixels) -> None:
        bilevel = Image.fromarray(digit).convert("1")
        found = read_digit(saved(bilevel), max_pixels=MAX_PIXELS)
        assert np.array_equal(found.pixels, np.asarray(bilevel.convert("L")))
        assert not found.fitted

    def test_a_gray_palette(self, digit: Pixels) -> None:
        found = read_digit(saved(Image.fromarray(digit).convert("P")), max_pixels=MAX_PIXELS)
        assert np.array_equal(found.pixels, digit)
        assert not found.fitted

    def test_colour_is_fitted(self) -> None:
        assert read_digit(saved(Image.new("RGB", (28, 28), "red")), max_pixels=MAX_PIXELS).fitted

    def test_transparency_is_fitted(self, digit: Pixels) -> None:
        image = Image.fromarray(digit).convert("LA")
        image.putpixel((3, 3), (9, 254))
        assert read_digit(saved(image), max_pixels=MAX_PIXELS).fitted

    def test_another_size_is_fitted(self) -> None:
        assert read_digit(saved(Image.new("L", (29, 28))), max_pixels=MAX_PIXELS).fitted


class TestModes:
    """The same drawing in all the ways that files have of holding it."""

    @pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
    def test_formats(self, kind: str) -> None:
        assert close(read(saved(Image.fromarray(page()), kind)), fit(page()))

    def test_colour(self) -> None:
        blue = Image.fromarray(page()).convert("RGB")
        blue.paste((10, 20, 120), mask=Image.fromarray(255 - page()))
        assert close(read(saved(blue)), fit(page()))

    def test_a_palette(self) -> None:
        assert close(read(saved(Image.fromarray(page()).convert("P"))), fit(page()))

    def test_cmyk(self) -> None:
        assert close(read(saved(Image.fromarray(page()).convert("CMYK"), "JPEG")), fit(page()))

    def test_larger_than_any_screen(self) -> None:
        large = page().repeat(16, axis=0).repeat(16, axis=1)
        found = read_digit(saved(Image.fromarray(large)), max_pixels=large.size)
        assert found.sent_pixels == 3200 * 2560
        assert close(found.pixels, fit(page()), 3)

    def test_16_bits(self) -> None:
        deep = Image.fromarray(page(paper=230, ink=20).astype(np.uint16) * 257)
        assert np.array_equal(read(saved(deep)), fit(page(paper=230, ink=20)))

    @pytest.mark.parametrize(("colour", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)], ids=["L", "RGB", "LA", "RGBA"])
    def test_16_bits_of_each_channel(self, colour: int, channels: int) -> None:
        """Pillow writes none of these but the first."""
        deep = page().astype(">u2") * 257
        rows = b"".join(b"\0" + row.repeat(channels).astype(">u2").tobytes() for row in deep)
        header = struct.pack(">2I5B", deep.shape[1], deep.shape[0], 16, colour, 0, 0, 0)
        assert close(read(png_of((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))), fit(page()))

    def test_a_palette_with_a_colour_to_see_through(self) -> None:
        see_through = saved(Image.fromarray(page()).convert("P"), transparency=255)
        assert close(read(see_through), fit(page()))

    def test_with_a_profile(self) -> None:
        assert close(read(saved(Image.fromarray(page()), icc_profile=bytes(500))), fit(page()))

    def test_a_cameras_jpeg_with_a_smaller_picture_behind(self) -> None:
        photograph = Image.fromarray(page()).convert("RGB")
        preview = Image.new("RGB", (80, 100))
        assert close(read(saved(photograph, "MPO", save_all=True, append_images=[preview])), fit(page()))

    @pytest.mark.parametrize("ink", [0, 255])
    def test_ink_on_nothing(self, ink: int) -> None:
        """A drawing program's layer: all transparent but for the strokes."""
        drawn = 255 - page()
        layer = np.dstack([np.full_like(drawn, ink), drawn])
        assert np.array_equal(read(saved(Image.fromarray(layer, "LA"))), fit(page()))

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
            read(saved(Image.fromarray(page()), kind))

    def test_a_format_that_is_not_wanted_here(self) -> None:
        jpeg = saved(Image.fromarray(page()), "JPEG")
        with pytest.raises(ImageError, match="not an image in PNG format"):
            read_digit(jpeg, max_pixels=MAX_PIXELS, formats=("PNG",))

    @pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
    def test_truncated_anywhere(self, kind: str) -> None:
        noise = Image.fromarray(np.random.default_rng(3).integers(0, 256, (64, 64), np.uint8))
        whole = saved(noise, kind)
        for length in range(0, len(whole) * 9 // 10, max(1, len(whole) // 60)):
            with pytest.raises(ImageError):
                read(whole[:length])

    @pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
    def test_a_changed_byte_is_an_image_or_an_image_error(self, kind: str) -> None:
        whole = bytearray(saved(Image.fromarray(page()), kind))
        random = np.random.default_rng(4)
        for position in random.integers(0, len(whole), 200):
            changed = whole.copy()
            changed[position] ^= int(random.integers(1, 256))
            with contextlib.suppress(ImageError):
                assert read(bytes(changed)).shape == (28, 28)

    def test_too_many_pixels(self) -> None:
        with pytest.raises(ImageError, match="513×512 pixels; 262144 at most"):
            read(saved(Image.new("L", (513, 512))))

    def test_animated(self) -> None:
        frames = [Image.new("L", (28, 28), shade) for shade in (0, 99)]
        for kind in ("PNG", "WEBP"):
            with pytest.raises(ImageError, match="animated"):
                read(saved(frames[0], kind, save_all=True, append_images=frames[1:]))
