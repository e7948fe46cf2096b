"""The plots of a run and of an evaluation, as PNGs on white, readable on a page of any colour."""

from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any, Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

WIDTH: Final = 6.4
"""Inches. Narrow, so that the lettering is readable on a telephone."""
DPI: Final = 150

# Distinguishable with any colour vision (Okabe & Ito 2008).
BLUE: Final = "#0072b2"
ORANGE: Final = "#d55e00"
GREEN: Final = "#009e73"
PURPLE: Final = "#aa4499"
GREY: Final = "#777777"

SMOOTHED_POINTS: Final = 50
"""A smoothed curve has about this many independent points."""

METRIC_PANELS: Final = (
    ("Fréchet distance", ("frechet_distance",), "log"),
    ("kernel distance", ("kernel_distance",), "symlog"),
    ("precision and recall", ("precision", "recall"), "linear"),
    ("density and coverage", ("density", "coverage"), "linear"),
    ("share of legible digits", ("legible",), "linear"),
    ("MNIST score", ("digit_score",), "linear"),
)
"""Title, keys of an evaluation's figures, and scale of each panel of :func:`metrics`."""


def losses(log: Mapping[str, Sequence[float | None]], generator_chance: float, discriminator_chance: float) -> bytes:
    """Draws both losses and the discriminator's accuracy over the steps: points faint, their moving mean strong.

    Dotted lines show where each would be if the discriminator could only guess. ``log`` is a thinned one.
    """
    figure = _figure(4.6)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    steps = np.array(log["step"], np.float64)
    for axes, name, label, colour, chance in (
        (upper, "generator_loss", "generator", BLUE, generator_chance),
        (upper, "discriminator_loss", "discriminator", ORANGE, discriminator_chance),
        (lower, "accuracy_real", "on real", GREEN, 0.5),
        (lower, "accuracy_fake", "on generated", PURPLE, 0.5),
    ):
        values = np.array(log[name], np.float64)
        axes.plot(steps, values, color=colour, linewidth=0.8, alpha=0.3)
        axes.plot(steps, _smoothed(values), color=colour, linewidth=1.6, label=label)
        axes.axhline(chance, color=GREY if axes is lower else colour, linestyle=":", linewidth=1.2)
    both = np.array([log["generator_loss"], log["discriminator_loss"]], np.float64)
    finite = both[np.isfinite(both)]
    upper.set_ylabel("loss (nats)")
    # A few extreme points, as at the beginning, don't flatten the rest.
    upper.set_ylim(0, 1.15 * max(discriminator_chance, float(np.quantile(finite, 0.995)) if len(finite) else 0))
    lower.set_ylabel("D is right")
    lower.set_ylim(0, 1)
    lower.set_xlabel("step")
    for axes in (upper, lower):
        _legend(axes)
    return _png(figure)


def metrics(evaluations: Sequence[Mapping[str, Any]], reference: Mapping[str, Any]) -> bytes:
    """Draws the figures of the evaluations during a run, a panel each; those of real images are dotted lines."""
    figure = _figure(6.6)
    steps = _column(evaluations, "step")
    grid = figure.subplots(3, 2, sharex=True)
    for axes, (title, keys, scale) in zip(grid.flat, METRIC_PANELS, strict=True):
        for key, colour in zip(keys, (BLUE, ORANGE), strict=False):
            axes.plot(
                steps, _column(evaluations, key), color=colour, marker=".", linewidth=1.4, label=key.replace("_", " ")
            )
            axes.axhline(reference[key], color=colour, linestyle=":", linewidth=1.2)
        axes.set_title(title, fontsize=10)
        if scale == "symlog":
            axes.set_yscale("symlog", linthresh=1e-3)
            axes.set_ylim(bottom=np.fmin.reduce(_column(evaluations, keys[0]), initial=0))
        else:
            axes.set_yscale(scale)
        if len(keys) > 1:
            axes.legend(fontsize=8, frameon=False)
    for axes in grid[-1]:
        axes.set_xlabel("step")
    return _png(figure)


def reliability(points: Sequence[Mapping[str, float]]) -> bytes:
    """Draws how often images with about the same probability are real; on the diagonal the probability is right."""
    figure = _figure(3.6, width=4.2)
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color=GREY, linestyle=":", linewidth=1.2)
    shares = _column(points, "images")
    x, y = _column(points, "probability"), _column(points, "share_true")
    axes.plot(x, y, color=BLUE, linewidth=1.2)
    axes.scatter(x, y, s=12 + 160 * shares / shares.sum(), color=BLUE, zorder=3)
    axes.set_xlabel("probability of being real")
    axes.set_ylabel("share that was real")
    axes.set_xlim(-0.03, 1.03)
    axes.set_ylim(-0.03, 1.03)
    return _png(figure)


def logits(histogram: Mapping[str, Sequence[float]]) -> bytes:
    """Draws histograms of the discriminator's raw logits: ``edges`` [B + 1], counts ``real`` and ``fake`` [B]."""
    figure = _figure(3.6, width=4.2)
    axes = figure.subplots()
    for name, label, colour in (("real", "real", GREEN), ("fake", "generated", PURPLE)):
        counts = np.asarray(histogram[name], np.float64)
        axes.stairs(counts / max(counts.sum(), 1), histogram["edges"], fill=True, color=colour, alpha=0.35, label=label)
    axes.set_xlabel("logit")
    axes.set_ylabel("share of images")
    _legend(axes)
    return _png(figure)


def _figure(height: float, width: float = WIDTH) -> Figure:
    return Figure(figsize=(width, height), layout="constrained")


def _png(figure: Figure) -> bytes:
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
    png = BytesIO()
    figure.savefig(png, format="png", dpi=DPI, facecolor="white")
    return png.getvalue()


def _legend(axes: Axes) -> None:
    """A legend above the axes, where no curve can cross it."""
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, frameon=False, borderaxespad=0, fontsize=9)


def _column(rows: Sequence[Mapping[str, Any]], key: str) -> NDArray[np.float64]:
    return np.array([row.get(key) for row in rows], np.float64)  # None becomes NaN.


def _smoothed(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mean of a window about each value, shorter towards the ends."""
    reach = len(values) // SMOOTHED_POINTS // 2
    return np.array([values[max(0, i - reach) : i + reach + 1].mean() for i in range(len(values))])
