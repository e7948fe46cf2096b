"""Ratios of timings that were taken in turn."""

import statistics
from collections.abc import Sequence


def spread(numerators: Sequence[float], denominators: Sequence[float]) -> str:
    """Returns the median of the rounds' ratios, and the middle half of them."""
    ratios = [a / b for a, b in zip(numerators, denominators, strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
    return f"{middle:.2f} ({low:.2f} – {high:.2f})"
