"""Separates the ink of a drawing from its background.

    ink = find_ink(Image.open("seven.jpg").convert("RGB"))   # None where there is no ink
    ink.strength                                             # 0 for paper to 1 for full ink, cut to the digit

Each step is one function: docs/score.md shows a picture of each. Pillow and NumPy do all of it: OpenCV would add 150 MB
to the gateway's image, and scikit-image needs SciPy.
"""

from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

Floats = NDArray[np.float32]
Pixels = NDArray[np.uint8]
Mask = NDArray[np.bool_]
Box = tuple[int, int, int, int]  # left, top, right and bottom, right and bottom exclusive
Polarity = Literal["dark-on-light", "light-on-dark"]

LARGE_SIDE: Final = 200  # larger pictures are averaged down to between one and two times this
FAINTEST: Final = 12  # gray levels; less contrast than this is no ink


@dataclass(frozen=True)
class Ink:
    """The strokes of a digit. ``strength``: float32 [h, w], 0 to 1, cut to ``box``, which is theirs in the picture."""

    strength: Floats
    polarity: Polarity
    box: Box


def find_ink(picture: Image.Image) -> Ink | None:
    """Returns the ink of the one digit in an L or RGB picture, or None if there is no ink."""
    page = without_rules(straightened(without_noise(one_channel(np.asarray(picture)))))
    page = without_rules(page.T).T
    factor = max(1, round(112 / max(page.shape)))  # edges then lie between pixels
    if factor > 1:
        size = page.shape[1] * factor, page.shape[0] * factor
        page = np.asarray(Image.fromarray(page).resize(size, Image.Resampling.BICUBIC))
    polarity = polarity_of(page)
    strength = ink_strength(page if polarity == "dark-on-light" else ~page)
    if strength is None:
        return None
    strokes = main_drawing(without_box(strength > 0.35))
    left, top, right, bottom = box_of(strokes)
    if max(right - left, bottom - top) < 0.03 * max(strokes.shape):  # dust
        return None
    strength = np.where(dilated(strokes, 1 + factor // 2), strength, 0)[top:bottom, left:right]
    box = left // factor, top // factor, -(-right // factor), -(-bottom // factor)
    return Ink(strength, polarity, box)


def box_of(mask: Mask) -> Box:
    """Returns the box of what is set in a mask; an empty one if nothing is."""
    return Image.fromarray(mask).getbbox() or (0, 0, 0, 0)


def one_channel(page: Pixels) -> Pixels:
    """Returns the colours along the axis on which small things differ most from their surroundings."""
    if page.ndim == 2:
        return page
    small = Image.fromarray(page)
    small = small.reduce(max(1, max(small.size) // 64))
    around = small.resize((4, 4), Image.Resampling.BOX).resize(small.size, Image.Resampling.BILINEAR)
    differences = (np.asarray(small, np.float32) - np.asarray(around, np.float32)).reshape(-1, 3)
    axis = np.linalg.eigh(differences.T @ differences)[1][:, -1].astype(np.float32)
    axis *= np.copysign(1 / np.abs(axis).sum(), axis.sum())
    channel: Pixels = np.rint(page @ axis - 255 * np.minimum(axis, 0).sum()).astype(np.uint8)
    return channel


def without_noise(page: Pixels) -> Pixels:
    """Smooths a page on which half of all neighbours differ by 6 gray levels: to means of 5×5 pixels."""
    if min(page.shape) < 64 or np.median(np.abs(np.diff(page.astype(np.int16)))) < 6:
        return page
    return np.asarray(Image.fromarray(page).filter(ImageFilter.BoxBlur(2)))


def straightened(page: Pixels) -> Pixels:
    """Returns a page with ruled lines of up to 6 % slope made horizontal: the shear with the sharpest rows' profile."""
    height, width = page.shape
    if min(height, width) < 64:
        return page
    thin = _thin_rows(page)
    rows, columns = np.arange(height)[:, np.newaxis], np.arange(0, width, max(1, width // 48))

    def sheared(values: Pixels, slope: float, columns: NDArray[np.intp]) -> Pixels:
        shift = np.rint(slope * (columns - width / 2)).astype(np.intp)
        moved: Pixels = values[np.clip(rows + shift, 0, height - 1), columns]
        return moved

    slopes = np.arange(-12, 13) / 200
    sharpness = [float((np.diff(sheared(thin, slope, columns).mean(axis=1)) ** 2).sum()) for slope in slopes]
    best = int(np.argmax(sharpness))
    if sharpness[best] < 1.3 * sharpness[len(slopes) // 2]:
        return page
    return sheared(page, slopes[best], np.arange(width))


def without_rules(page: Pixels) -> Pixels:
    """Returns a page on which what is above and below replaces each line that runs from side to side."""
    height, width = page.shape
    if min(height, width) < 8:
        return page
    stands_out = _thin_rows(page)
    thin = stands_out > FAINTEST + 2 * float(np.median(stands_out))
    if height >= 64:
        thin[1:] |= thin[:-1].copy()
    ends = max(2, width // 12)
    at_both_ends = (thin[:, :ends].mean(axis=1) > 0.6) & (thin[:, -ends:].mean(axis=1) > 0.6)
    ruled = at_both_ends & (thin.mean(axis=1) > 0.4)  # the rest may be under a stroke
    if height >= 64:
        ruled[:-1] |= ruled[1:].copy()
    kept = np.flatnonzero(~ruled)
    if kept.size in (0, height):
        return page
    place = np.interp(np.arange(height), kept, np.arange(kept.size))
    above = place.astype(np.intp)
    share = (place - above)[:, np.newaxis]
    below = np.minimum(above + 1, kept.size - 1)
    return np.rint(page[kept[above]] * (1 - share) + page[kept[below]] * share).astype(np.uint8)


def polarity_of(page: Pixels) -> Polarity:
    """Returns whether the dark or the light is the ink: strokes are narrow, so small windows fill them first."""
    balance = 0.0
    for share, weight in ((0.02, 64), (0.04, 16), (0.08, 4), (0.16, 1)):
        dark = (background(page, share) - page).ravel().astype(np.float32)
        light = (background(~page, share) - ~page).ravel().astype(np.float32)
        balance += weight * float(dark @ dark - light @ light)
    return "dark-on-light" if balance >= 0 else "light-on-dark"


def background(page: Pixels, share: float) -> Pixels:
    """Returns the page without the dark things that are narrower than ``share`` of its side (a closing).

    Beyond its edges the page goes on as it ends, so that a frame is broad.
    """
    side = max(2, round(share * max(page.shape)))
    closed = np.pad(page, side - 1, "edge")
    for _ in range(2):  # what is filled, then what is left of it
        closed = ~_greatest(_greatest(closed, side).T, side).T
    return closed


def ink_strength(page: Pixels) -> Floats | None:
    """Returns how much ink each pixel of a page with dark ink has, 0 to 1; None if there is too little contrast."""
    strength = (background(page, 0.32) - page).astype(np.float32)  # a shadow or a table is broader than any stroke
    noise = _quantile(strength[::2, ::2], 0.3)
    strength -= noise
    smooth = Image.fromarray(strength).reduce(2) if min(strength.shape) > 100 else strength
    peak = float(np.asarray(smooth).max())
    if peak <= 0:
        return None
    full = _quantile(strength[strength > peak / 2], 0.6)
    return None if full < max(FAINTEST, 2 * noise) else np.clip(strength / full, 0, 1)


def without_box(strokes: Mask) -> Mask:
    """Returns the strokes without a box, such as a form's cell: four lines with something tall inside."""
    _, _, boxes = connected_parts(strokes)
    left, top, right, bottom = boxes[:, np.prod(boxes[2:] - boxes[:2], axis=0).argmax()]
    whole = strokes[top:bottom, left:right]
    inside = whole.copy()
    height, width = whole.shape
    rim = round(0.12 * min(height, width))  # the lines of a box lie within it
    if not rim:
        return strokes
    depth = np.arange(rim)[:, np.newaxis]
    for turns in range(4):
        side = np.rot90(whole, turns)[:rim]
        start = side.argmax(axis=0)
        end = np.where(~side & (depth > start), depth, rim).min(axis=0, initial=rim)
        thickness = np.median(end - start)
        if side.any(axis=0).mean() < 0.85 or thickness >= rim:
            return strokes
        np.rot90(inside, turns)[:rim] &= (depth < start) | (depth > start + thickness)
    label, _, (left_inside, top_inside, right_inside, bottom_inside) = connected_parts(inside)
    kept = (right_inside > rim) & (left_inside < width - rim) & (bottom_inside > rim) & (top_inside < height - rim)
    if not (kept & (bottom_inside - top_inside > 0.25 * height)).any():
        return strokes
    found = np.zeros_like(strokes)
    found[top:bottom, left:right] = inside & kept[label]  # Without what is left of round corners.
    return found


def main_drawing(strokes: Mask) -> Mask:
    """Returns the strokes without specks, and without shadows and remains of lines at the edge."""
    height, width = strokes.shape
    label, area, (left, top, right, bottom) = connected_parts(strokes)
    touching = (top == 0) | (left == 0) | (bottom == height) | (right == width)
    towards_middle = np.minimum.outer(_distance_to_edge(height), _distance_to_edge(width))
    beside = np.bincount(label[strokes], towards_middle[strokes] > 0.12, top.size) == 0  # all of it is near the edge
    length = np.maximum(bottom - top, right - left)
    line = beside & (area < 0.2 * length**2) & (length > 0.2 * max(height, width))  # straight, or around a corner
    mass = np.bincount(label[strokes], towards_middle[strokes] + 0.02, top.size)
    mass[line | (touching & beside)] *= 0.02
    main = int(mass.argmax())
    kept = ~touching & ~line & (length > 0.15 * length[main]) & (area > 0.04 * area[main])
    kept[main] = True
    drawing: Mask = strokes & kept[label]
    return drawing


def connected_parts(mask: Mask) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
    """Returns the part of each pixel of a mask, [h, w], the area of each part, [P], and their boxes, [4, P].

    It joins the runs of set pixels in each row with those that they touch in the next one, corners included.
    """
    height, width = mask.shape
    stride = width + 2
    change = np.diff(np.pad(mask, 1).ravel().astype(np.int8))
    starts, ends = np.flatnonzero(change == 1) + 1, np.flatnonzero(change == -1) + 1
    first = np.searchsorted(ends, starts + stride)
    count = np.maximum(np.searchsorted(starts, ends + stride, "right") - first, 0)
    upper = np.repeat(np.arange(starts.size), count)
    lower = np.arange(count.sum()) + np.repeat(first - np.cumsum(count) + count, count)
    root = np.arange(starts.size)
    while (root[upper] != root[lower]).any():
        least = np.minimum(root[upper], root[lower])
        for run in (upper, lower):
            np.minimum.at(root, root[run], least)
        root = root[root]
    names, part = np.unique(root, return_inverse=True)
    lengths = ends - starts
    label = np.zeros(mask.shape, np.intp)
    label[mask] = np.repeat(part, lengths)
    row, left = starts // stride - 1, starts % stride - 1
    boxes = np.repeat([[width], [height], [0], [0]], names.size, axis=1)
    for edges, least in zip(boxes[:2], (left, row), strict=True):
        np.minimum.at(edges, part, least)
    for edges, most in zip(boxes[2:], (left + lengths, row + 1), strict=True):
        np.maximum.at(edges, part, most)
    return label, np.bincount(part, lengths), boxes


def dilated(values: NDArray[Any], by: int) -> NDArray[Any]:
    """Returns the greatest value of the square of 2 · ``by`` + 1 pixels around each pixel."""
    side = 2 * by + 1
    return _greatest(_greatest(np.pad(values, by), side).T, side).T


def _greatest(values: NDArray[Any], side: int) -> NDArray[Any]:
    """Returns the greatest of each ``side`` values below each other: [h, w] to [h - side + 1, w]."""
    reach = 1
    while reach < side:
        step = min(reach, side - reach)
        values, reach = np.maximum(values[:-step], values[step:]), reach + step
    return values


def _thin_rows(page: Pixels) -> Pixels:
    """Returns how far each pixel stands out from what is a little above and below, lighter or darker."""
    side = max(3, round(0.03 * len(page)))  # of the thickest line
    padded = np.pad(page, ((side - 1, side - 1), (0, 0)), "edge")
    darker: Pixels = ~_greatest(~_greatest(padded, side), side) - page
    lighter = page - _greatest(~_greatest(~padded, side), side)
    most: Pixels = np.maximum(darker, lighter)
    return most


def _quantile(values: Floats, share: float) -> float:
    """Returns the value that a share of the values is below: np.quantile takes three times as long."""
    place = int(share * (values.size - 1))
    return float(np.partition(values, place, axis=None)[place])


def _distance_to_edge(length: int) -> NDArray[np.float64]:
    place = np.arange(length)
    return np.minimum(place + 1, length - place) / length
