"""From an uploaded file to 28×28 pixels: decoding it safely, and fitting its digit as MNIST was made.

    read_digit(file, max_pixels=16_000_000).pixels   # uint8 [28, 28], light on dark

MNIST's digits were scaled into 20×20 pixels with their proportions kept and with antialiasing, and placed into 28×28
so that their centre of mass is in the middle (Y. LeCun, C. Cortes and C. J. C. Burges, "The MNIST database").
"""

import io
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from api.digits import containers
from api.digits.ink import FAINTEST, LARGE_SIDE, Box, Ink, Pixels, Polarity, box_of, dilated, find_ink
from serving.contract import IMAGE_SIDE

FORMATS: Final = ("PNG", "JPEG", "WEBP")  # Pillow's other decoders cannot be reached

Fit = Literal["auto", "always", "never"]

Image.MAX_IMAGE_PIXELS = None  # read_digit has a limit of its own


class ImageError(ValueError):
    """The file is not an image that is accepted. The message says why, for the sender."""


@dataclass(frozen=True)
class Digit:
    """An image's digit: uint8 [28, 28], light on dark. ``fitted``: whether the pixels differ from the image's.

    ``polarity`` and ``box``, in pixels of the upright image, are those of ink that was fitted.
    """

    pixels: Pixels
    fitted: bool
    sent_pixels: int
    ink: bool
    polarity: Polarity | None = None
    box: Box | None = None


def read_digit(file: bytes, *, max_pixels: int, formats: tuple[str, ...] = FORMATS, fit: Fit = "auto") -> Digit:
    """Returns the digit in an image file.

    ``fit``: ``auto`` keeps 28×28 pixels as MNIST has them, and fits all others; ``always`` fits every image; ``never``
    keeps every image. Raises ImageError for a file that isn't one of ``formats``, is damaged, is animated, or has more
    than ``max_pixels``, and with ``never`` for other than 28×28 gray and opaque pixels.
    """
    image, (width, height) = _decode(file, max_pixels, formats)
    plain = _plain(image)
    if fit == "never" and plain is None:
        raise ImageError(f"{width}×{height} pixels; with fit=never, 28×28 gray and opaque pixels are needed")
    if plain is not None and (fit == "never" or (fit == "auto" and _is_as_mnist(plain))):
        return Digit(plain, False, width * height, ink=bool(plain.any()))
    page, left, top, scale = _page(image, width, deep=file[:8] == containers.PNG_SIGNATURE and file[24] == 16)
    ink = find_ink(page)
    if ink is None:
        black = np.zeros((IMAGE_SIDE, IMAGE_SIDE), np.uint8)
        return Digit(black, plain is None or bool(plain.any()), width * height, ink=False)
    box = ink.box[0] + left, ink.box[1] + top, ink.box[2] + left, ink.box[3] + top
    right, bottom = min(width, round(box[2] * scale)), min(height, round(box[3] * scale))
    sent_box = round(box[0] * scale), round(box[1] * scale), right, bottom
    return Digit(into_mnist(ink), True, width * height, True, ink.polarity, sent_box)


def _decode(file: bytes, max_pixels: int, formats: tuple[str, ...]) -> tuple[Image.Image, tuple[int, int]]:
    """Returns the upright image, and width and height that it has at full size: a large JPEG is decoded smaller."""
    if refusal := containers.complaint(file):
        raise ImageError(refusal)
    try:
        image = Image.open(io.BytesIO(file), formats=formats)
        width, height = image.size
        if width * height > max_pixels:
            raise ImageError(f"{width}×{height} pixels; {max_pixels} at most are taken")
        # A camera's JPEG can have more pictures behind the photograph (a preview, the depth): they aren't looked at.
        if getattr(image, "is_animated", False) and image.format != "MPO":
            raise ImageError("animated; one still image is wanted")
        image.draft(image.mode, (2 * LARGE_SIDE, 2 * LARGE_SIDE))
        image.load()
        upright = ImageOps.exif_transpose(image)
        turned = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
        return upright, (height, width) if turned else (width, height)
    except ImageError:
        raise
    except UnidentifiedImageError:
        raise ImageError(f"not an image in {' or '.join(formats)} format") from None
    except Exception as error:
        # Pillow does not document which exceptions its decoders raise on damaged data. All of them mean the same.
        raise ImageError("damaged: it cannot be decoded") from error


def _plain(image: Image.Image) -> Pixels | None:
    """Returns the pixels of an image that can be scored as it is: 28×28, all opaque, all gray, 8 bits."""
    if image.size != (IMAGE_SIDE, IMAGE_SIDE) or image.mode.startswith("I"):
        return None
    rgba = np.asarray(image.convert("RGBA"))
    if (rgba[..., 3] == 255).all() and (rgba[..., :3] == rgba[..., :1]).all():
        return np.ascontiguousarray(rgba[..., 0])
    return None


def _is_as_mnist(pixels: Pixels) -> bool:
    """Returns whether 28×28 pixels are like MNIST's: light on black, with ink of its size, in the middle."""
    if np.median(pixels) > 2 or pixels.max() < 200:
        return False
    left, top, right, bottom = box_of(pixels > 64)
    in_middle = all(abs(_centre(pixels.sum(axis=axis)) - IMAGE_SIDE / 2) <= 2 for axis in (0, 1))
    return 13 <= max(right - left, bottom - top) <= 24 and in_middle


def _page(image: Image.Image, width: int, *, deep: bool) -> tuple[Image.Image, int, int, float]:
    """Returns an image's opaque page as L or RGB, reduced: the page, its left and top, and the reduction's factor."""
    if image.mode.startswith("I"):  # 16 bits a pixel, of which a camera or scanner may use 10, 12 or 14
        values = np.asarray(image)
        image = Image.fromarray((values >> max(0, int(values.max()).bit_length() - 8)).astype(np.uint8))
    if image.mode not in ("LA", "RGBA"):
        opaque_mode = "L" if image.mode in ("1", "L") else "RGB"
        image = image.convert("RGBA" if image.has_transparency_data else opaque_mode)
    image = image.reduce(max(1, max(image.size) // LARGE_SIDE))
    scale = width / image.width
    if deep:  # of each of 16 bits, 8 are left; a scanner may use 12
        values = np.asarray(image)
        image = Image.fromarray(values * (16 if values[..., :3].max() < 16 else 1))
    if image.mode.endswith("A"):
        page, left, top = _opaque(np.asarray(image.convert("RGBA")))
        image = Image.fromarray(page)
    else:
        left = top = 0
    if image.mode == "RGB":
        colours = np.asarray(image, np.int16)
        if np.abs(colours - colours[..., 1:2]).max() < FAINTEST:  # no channel differs much from green
            image = image.convert("L")
    return image, left, top, scale


def _opaque(rgba: Pixels) -> tuple[Pixels, int, int]:
    """Returns what is drawn on an image with transparency, its left and its top.

    Opaque pixels that fill a rectangle, but for round corners, and differ are a page. In other images the opacity is
    the drawing.
    """
    alpha = rgba[..., 3]
    visible = rgba[..., :3][alpha > alpha.max() // 2]
    solid = alpha >= 0.9 * alpha.max()
    left, top, right, bottom = box_of(solid)
    box = slice(top, bottom), slice(left, right)
    if not visible.size or solid[box].mean() < 0.6:  # strokes fill less of their box than a page
        return alpha, 0, 0
    paper = np.median(visible, axis=0)
    if np.quantile(np.abs(visible - paper).max(axis=1), 0.998) < 2 * FAINTEST:
        return alpha, 0, 0
    page = np.where(solid[..., np.newaxis], rgba[..., :3], paper.astype(np.uint8))
    return page[box], left, top


def into_mnist(ink: Ink) -> Pixels:
    """Returns the ink as MNIST would have it: uint8 [28, 28], light on dark, in 20×20 pixels, centred by mass."""
    strength = np.clip((ink.strength - 0.15) / (0.85 - 0.15), 0, 1)  # less is paper, more is full ink
    strokes = _resized(np.rint(strength * 255).astype(np.uint8), 160, Image.Resampling.BICUBIC)
    missing = round((16 - _stroke_width(strokes > 127)) / 2)
    if missing > 0:  # MNIST's strokes are 19 wide at this size, and thinner ones fade in 20 pixels
        strokes = dilated(np.pad(strokes, missing), missing)
    small = _resized(strokes, 20, Image.Resampling.LANCZOS)
    small = np.rint(small * (255 / max(1, small.max()))).astype(np.uint8)
    top, left = (_offset(small.sum(axis=axis)) for axis in (1, 0))
    canvas = np.zeros((IMAGE_SIDE, IMAGE_SIDE), np.uint8)
    canvas[top : top + small.shape[0], left : left + small.shape[1]] = small
    return canvas


def _resized(pixels: Pixels, side: int, how: Image.Resampling) -> Pixels:
    """Resizes pixels: their longer side becomes ``side``."""
    height, width = pixels.shape
    factor = side / max(height, width)
    size = max(1, round(width * factor)), max(1, round(height * factor))
    return np.asarray(Image.fromarray(pixels).resize(size, how))


def _stroke_width(strokes: NDArray[np.bool_]) -> float:
    """Returns the mean width of strokes: their area over half of their outline."""
    padded = np.pad(strokes, 1)
    inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return 2 * float(strokes.sum()) / max(1, int((strokes & ~inner).sum()))


def _offset(mass: NDArray[np.integer]) -> int:
    """Returns where the ink box begins on one axis: its centre of mass comes to pixel 14, as in MNIST (± 0.29)."""
    return int(np.clip(round(IMAGE_SIDE / 2 - _centre(mass)), 0, IMAGE_SIDE - mass.size))


def _centre(mass: NDArray[np.integer]) -> float:
    total = int(mass.sum())
    return float(np.arange(mass.size) @ mass) / total if total else mass.size / 2
