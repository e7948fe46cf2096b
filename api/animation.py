"""Frames as one moving picture, without losing a shade: animated PNG, WebP or GIF."""

import io
from typing import Any, Final

from PIL import Image

from api.images import Pixels, enlarge

APNG: Final = "image/apng"
WEBP: Final = "image/webp"
GIF: Final = "image/gif"

SUFFIXES: Final = {APNG: "png", WEBP: "webp", GIF: "gif"}

_FORMATS: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    APNG: ("PNG", {"compress_level": 6}),
    WEBP: ("WEBP", {"lossless": True, "quality": 20, "method": 0}),
    # All 256 shades have a place in the palette; without this Pillow would look for a smaller one.
    GIF: ("GIF", {"optimize": False}),
}


def animation(frames: Pixels, media_type: str, frame_ms: int, scale: int = 1) -> bytes:
    """Returns frames [N, H, W], enlarged, as a film that repeats forever.

    Args:
        frames: uint8 [N, H, W], at least one.
        media_type: APNG, WEBP or GIF.
        frame_ms: how long each frame is shown. A GIF counts in hundredths of a second.
        scale: each pixel becomes a square of this side.
    """
    kind, options = _FORMATS[media_type]
    first, *rest = (Image.fromarray(frame) for frame in enlarge(frames, scale))
    file = io.BytesIO()
    first.save(file, kind, save_all=True, append_images=rest, duration=frame_ms, loop=0, **options)
    return file.getvalue()
