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
_PLAIN: Final = " ▄▀█"
"""By whether the upper and the lower pixel are ink: where there are no colours."""


def draw(console: Console, pixels: NDArray[np.uint8], captions: Sequence[str]) -> None:
    """Prints digits side by side, as many as the terminal is wide, each above its caption, which may take two lines.

    Args:
        console: where; without colours, for example into a file, ink is black or white.
        pixels: uint8 [N, H, W], H even.
        captions: one for each.
    """
    picture = _in_colour if console.color_system else _plain
    width = pixels.shape[2]
    cells = [Group(picture(one), Text(caption.center(width))) for one, caption in zip(pixels, captions, strict=True)]
    console.print(Columns(cells, width=width, padding=(1, 1)))


def _in_colour(pixels: NDArray[np.uint8]) -> Segments:
    segments = []
    for upper, lower in zip(pixels[0::2].tolist(), pixels[1::2].tolist(), strict=True):
        for above, below in zip(upper, lower, strict=True):
            style = Style(color=Color.from_rgb(above, above, above), bgcolor=Color.from_rgb(below, below, below))
            segments.append(Segment("▀", style))
        segments.append(Segment.line())
    return Segments(segments)


def _plain(pixels: NDArray[np.uint8]) -> Text:
    ink = pixels >= _INK
    rows = (2 * ink[0::2] + ink[1::2]).tolist()
    return Text("\n".join("".join(_PLAIN[both] for both in row) for row in rows), no_wrap=True)
