"""Digits drawn in a terminal: two pixels a character, by half blocks."""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from rich.color import Color
from rich.columns import Columns
from rich.console import Console, Group
from rich.segment import Segment, Segments
from rich.style import Style
from rich.text import Text

_INK: Final = 128
_PLAIN: Final = " ▄▀█"  # without colours, by whether the upper and the lower pixel are ink


def draw(console: Console, pixels: NDArray[np.uint8], captions: Sequence[str]) -> None:
    """Prints digits, uint8 [N, H, W] with an even H, side by side, each above its caption, which may take two lines.

    A console without colours, such as a file, gets black or white pixels.
    """
    width, colour = pixels.shape[2], console.color_system is not None
    cells = [
        Group(_picture(one, colour), Text(caption.center(width))) for one, caption in zip(pixels, captions, strict=True)
    ]
    console.width = max(console.width, width + 1)
    console.print(Columns(cells, width=width, padding=(1, 1)))


def _picture(pixels: NDArray[np.uint8], colour: bool) -> Segments:
    segments = []
    for upper, lower in zip(pixels[0::2].tolist(), pixels[1::2].tolist(), strict=True):
        for above, below in zip(upper, lower, strict=True):
            style = Style(color=Color.from_rgb(above, above, above), bgcolor=Color.from_rgb(below, below, below))
            plain = Segment(_PLAIN[2 * (above >= _INK) + (below >= _INK)])
            segments.append(Segment("▀", style) if colour else plain)
        segments.append(Segment.line())
    return Segments(segments)
