"""From an uploaded file to 28×28 pixels: decoding what strangers send, fitting it as MNIST was made.

MNIST's digits were scaled into 20×20 pixels with their proportions kept and with antialiasing, and placed
into 28×28 so that their centre of mass is in the middle (Y. LeCun, C. Cortes and C. J. C. Burges, "The MNIST
database").
"""

import io
import warnings
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from api import containers
from serving.contract import IMAGE_SIDE

FORMATS: Final = ("PNG", "JPEG", "WEBP")
"""What may be decoded. Pillow's other decoders are reachable by nobody."""

INK_SIDE: Final = 20
_LIGHT: Final = 127
_LARGE_SIDE: Final = 1024
"""Larger images are averaged down to about this first: 20 pixels will be left, and memory stays small."""
_FAINTEST: Final = 32
"""Less contrast than this is an empty page, its noise or a JPEG's ringing."""
_INK: Final = 64
"""Pixels above this, of 255 for the strongest ink, make up the ink box. Of 8, 16, 32, 48, 64 and 96 it is the
threshold that brings enlarged MNIST digits back the closest."""


class ImageError(ValueError):
    """The file isn't an image that is taken. The message says why, in words for the sender."""


@dataclass(frozen=True)
class Digit:
    """``pixels``: uint8 [28, 28], light on dark. ``fitted``: whether they were changed on the way.

    ``sent_pixels``: how many the image had.
    """

    pixels: NDArray[np.uint8]
    fitted: bool
    sent_pixels: int


def read_digit(file: bytes, *, max_pixels: int, formats: tuple[str, ...] = FORMATS) -> Digit:
    """Returns the digit in an image file.

    28×28 without colour and transparency is taken as it is. Anything else is fitted.

    Raises ImageError for a file that isn't one of ``formats``, is damaged, is animated, or has more than
    ``max_pixels`` (found out before any of them is decoded).
    """
    image = _decode(file, max_pixels, formats)
    plain = _plain(image)
    pixels = fit(_grayscale(image)) if plain is None else plain
    return Digit(pixels, plain is None, image.width * image.height)


def _decode(file: bytes, max_pixels: int, formats: tuple[str, ...]) -> Image.Image:
    if refusal := containers.complaint(file):
        raise ImageError(refusal)
    try:
        with warnings.catch_warnings():  # Pillow warns of sizes that are refused here anyway
            warnings.simplefilter("ignore")
            image = Image.open(io.BytesIO(file), formats=formats)
        width, height = image.size
        if width * height > max_pixels:
            raise ImageError(f"{width}×{height} pixels; {max_pixels} at most are taken")
        # A camera's JPEG can have more pictures behind the photograph (a preview, the depth): they aren't looked at.
        if getattr(image, "is_animated", False) and image.format != "MPO":
            raise ImageError("animated; one still image is wanted")
        image.load()
        return ImageOps.exif_transpose(image)
    except ImageError:
        raise
    except UnidentifiedImageError:
        raise ImageError(f"not an image in {' or '.join(formats)} format") from None
    except Image.DecompressionBombError:
        raise ImageError(f"too many pixels; {max_pixels} at most are taken") from None
    except Exception as error:
        # Which exceptions a decoder raises on damaged data is no one's promise; all of them mean the same.
        raise ImageError("damaged: it cannot be decoded") from error


def _plain(image: Image.Image) -> NDArray[np.uint8] | None:
    """Returns the pixels of an image that needs no fitting: 28×28, all opaque, all gray, 8 bits."""
    if image.size != (IMAGE_SIDE, IMAGE_SIDE) or image.mode.startswith(("I", "F")):
        return None
    rgba = np.asarray(image.convert("RGBA"))
    gray = rgba[..., 0]
    if (rgba[..., 3] == 255).all() and (rgba[..., 1] == gray).all() and (rgba[..., 2] == gray).all():
        return np.ascontiguousarray(gray)
    return None


def _grayscale(image: Image.Image) -> NDArray[np.uint8]:
    """Returns the brightness [H, W]; the backdrop is black under light ink and white under dark ink."""
    if image.mode.startswith(("I", "F")):  # 16 bits a pixel, which Pillow would clip
        deep: NDArray[np.generic] = np.clip(np.asarray(image), 0, 65535) // 257
        return deep.astype(np.uint8)
    transparent = image.has_transparency_data
    image = image.convert("LA" if transparent else "L")
    image = image.reduce(max(1, max(image.size) // _LARGE_SIDE))
    if not transparent:
        return np.asarray(image)
    both = np.asarray(image, np.float32)
    brightness, alpha = both[..., 0], both[..., 1] / 255
    ink_is_light = (brightness * alpha).sum() > _LIGHT * alpha.sum()
    backdrop = 0 if ink_is_light else 255
    return np.rint(brightness * alpha + backdrop * (1 - alpha)).astype(np.uint8)


def fit(gray: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Returns a digit of any size [H, W] as MNIST would have it: uint8 [28, 28], light on dark.

    The border's median is the background: a light one is inverted, then the background becomes 0 and the
    strongest ink 255. An image without ink comes out black.
    """
    border = np.concatenate([gray[0], gray[-1], gray[1:-1, 0], gray[1:-1, -1]])
    background = float(np.median(border))
    ink = gray.astype(np.float32) - background
    if background > _LIGHT:
        ink = -ink
    strongest = ink.max()
    canvas = np.zeros((IMAGE_SIDE, IMAGE_SIDE), np.uint8)
    if strongest < _FAINTEST:
        return canvas
    ink = np.clip(ink * (255 / strongest), 0, 255)
    rows = np.flatnonzero((ink > _INK).any(axis=1))
    columns = np.flatnonzero((ink > _INK).any(axis=0))
    box = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    small = _into_ink_box(box)
    top, left = (_offset(small.sum(axis=axis)) for axis in (1, 0))
    canvas[top : top + small.shape[0], left : left + small.shape[1]] = small
    return canvas


def _into_ink_box(box: NDArray[np.float32]) -> NDArray[np.uint8]:
    height, width = box.shape
    factor = INK_SIDE / max(height, width)
    size = max(1, round(width * factor)), max(1, round(height * factor))
    image = Image.fromarray(np.rint(box).astype(np.uint8)).resize(size, Image.Resampling.LANCZOS)
    return np.asarray(image)


def _offset(mass: NDArray[np.integer]) -> int:
    """Returns where the ink box begins on one axis, for its centre of mass to come to pixel 14 (from 0).

    That is where MNIST has it: 13.98 ± 0.29 vertically and 14.01 ± 0.29 horizontally.
    """
    centre = float(np.average(np.arange(mass.size), weights=mass))
    return int(np.clip(round(IMAGE_SIDE / 2 - centre), 0, IMAGE_SIDE - mass.size))
