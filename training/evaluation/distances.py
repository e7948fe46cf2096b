"""Euclidean distances between many points and many others, a block at a time, so that memory stays small."""

from collections.abc import Callable, Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]

ROWS: Final = 500
COLUMNS: Final = 10_000


def squared_distances(points: Floats, others: Floats) -> Floats:
    """The squared distances of every point to every other one, by |a|² + |b|² - 2ab; never negative.

    Args:
        points: floating point [N, D].
        others: floating point [M, D], of the same dtype.

    Returns:
        [N, M] in that dtype.
    """
    products = points @ others.T
    products *= -2
    products += (points**2).sum(1)[:, None]
    products += (others**2).sum(1)
    return np.maximum(products, 0, out=products)


def squared_distance_rows(points: Floats, others: Floats) -> Iterator[tuple[slice, Floats]]:
    """All squared distances, some rows at a time: (the rows' slice, [rows, M])."""
    for first in range(0, len(points), ROWS):
        rows = slice(first, min(first + ROWS, len(points)))
        yield rows, squared_distances(points[rows], others)


def nearest_neighbour_radii(points: Floats, counts: tuple[int, ...]) -> NDArray[np.float64]:
    """The squared distance of each point to its k-th nearest other point.

    Args:
        points: floating point [N, D], N greater than every k.
        counts: the values of k.

    Returns:
        float64 [len(counts), N].
    """
    radii = np.empty((len(counts), len(points)))
    for rows, distances in squared_distance_rows(points, points):
        distances[np.arange(len(distances)), np.arange(rows.start, rows.stop)] = np.inf  # A point isn't its own.
        places = [k - 1 for k in counts]
        radii[:, rows] = np.partition(distances, places, axis=1)[:, places].T
    return radii


def nearest_images(
    images: NDArray[np.uint8],
    others: NDArray[np.uint8],
    excluded: NDArray[np.integer[Any]] | None = None,
    advance: Callable[[int], None] = lambda _: None,
) -> NDArray[np.float64]:
    """The distance of each image to the nearest of the others: Euclidean, on pixels from 0 to 1.

    Args:
        images: uint8 [N, 28, 28].
        others: uint8 [M, 28, 28].
        excluded: for each image one of the others that doesn't count, such as the image itself; integers [N].
        advance: told now and then for how many more images the search is done; N in all.

    Returns:
        float64 [N]; infinite where no other image is left.
    """
    points = images.reshape(len(images), -1).astype(np.float32)
    smallest = np.full(len(images), np.inf, np.float32)
    nearest = np.zeros(len(images), np.int64)
    for first in range(0, len(others), COLUMNS):
        block = others[first : first + COLUMNS].reshape(-1, points.shape[1]).astype(np.float32)
        for rows, distances in squared_distance_rows(points, block):
            if excluded is not None:
                columns = excluded[rows] - first
                within = np.flatnonzero((columns >= 0) & (columns < len(block)))
                distances[within, columns[within]] = np.inf
            best = distances.argmin(1)
            found = distances[np.arange(len(best)), best]
            closer = found < smallest[rows]
            smallest[rows] = np.where(closer, found, smallest[rows])
            nearest[rows] = np.where(closer, best + first, nearest[rows])
        done = first + len(block)
        advance(len(images) * done // len(others) - len(images) * first // len(others))
    # The winners again, exactly: squares of this size are rounded in float32, and a copy's distance must be 0.
    differences = images.reshape(len(images), -1).astype(np.int64) - others.reshape(len(others), -1)[nearest]
    exact = np.sqrt((differences**2).sum(1)) / 255
    return np.where(np.isfinite(smallest), exact, np.inf)
