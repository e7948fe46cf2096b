"""Ways through noise keep to the sphere or to the line, and meet their points exactly."""

import numpy as np
import pytest

from serving.interpolation import lerp, path, slerp


def test_an_arc_of_a_right_angle_worked_out_by_hand() -> None:
    start, end = np.array([1, 0], np.float32), np.array([0, 1], np.float32)
    half = np.sqrt(0.5)
    third = [np.cos(np.pi / 6), np.sin(np.pi / 6)]
    np.testing.assert_allclose(slerp(start, end, np.array([1 / 3, 0.5])), [third, [half, half]], rtol=1e-6)
    np.testing.assert_allclose(lerp(start, end, np.array([0.25])), [[0.75, 0.25]])


@pytest.mark.parametrize("end", [[1, 2], [2, 4], [-1, -2], [0, 0]], ids=["same", "longer", "opposite", "zero"])
def test_where_there_is_no_one_arc_it_is_the_line(end: list[int]) -> None:
    start, last = np.array([1, 2], np.float32), np.array(end, np.float32)
    shares = np.linspace(0, 1, 5)
    np.testing.assert_array_equal(slerp(start, last, shares), lerp(start, last, shares))


def test_an_arc_between_the_largest_numbers_stays_finite() -> None:
    """It leaves what float32 holds: found by schemathesis, as a 500."""
    most = np.finfo(np.float32).max
    start, end = np.full(100, most), np.full(100, most)
    end[50:] = -most
    found = path(np.stack([start, end]), 4, "slerp", loop=False)
    assert found.dtype == np.float32
    assert np.isfinite(found).all()
    assert np.array_equal(found[[0, -1]], np.stack([start, end]))
