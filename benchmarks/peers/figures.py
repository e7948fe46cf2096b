"""From the rows of a run to its table and plots."""

import statistics
from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any, Final

from matplotlib.figure import Figure

from benchmarks.peers.load import SCENARIOS
from benchmarks.peers.services import OURS

Row = Mapping[str, Any]

MEASURES: Final = (
    # Scenario, key of its rows, unit, whether more is better, and the ratio to the best peer that is wanted.
    ("1x1", "p50_ms", "ms p50", False, 0.6),
    ("1x64", "images_per_s", "images/s", True, 2.0),
    ("1x64", "p99_ms", "ms p99", False, 0.6),
    ("16x8", "images_per_s", "images/s", True, 1.5),
    ("256x1", "images_per_s", "images/s", True, 1.5),
)
TITLES: Final = {scenario.name: scenario.title for scenario in SCENARIOS}
START: Final = "start"

# As in training.run.plots (Okabe & Ito 2008).
_BLUE, _GREY = "#0072b2", "#777777"


def values(rows: Sequence[Row], service: str, scenario: str, key: str) -> dict[int, float]:
    """Returns a service's figures by round."""
    return {
        row["round"]: row[key]
        for row in rows
        if row["service"] == service and row["scenario"] == scenario and key in row
    }


def services(rows: Sequence[Row]) -> list[str]:
    """Returns the services' names, ours first."""
    names = dict.fromkeys(row["service"] for row in rows)
    return sorted(names, key=lambda name: name != OURS)


def best_peer(rows: Sequence[Row], scenario: str, key: str, *, more: bool) -> str | None:
    """Returns the peer with the best median; None if there are no figures."""
    medians = {
        name: statistics.median(found.values())
        for name in services(rows)
        if name != OURS and (found := values(rows, name, scenario, key))
    }
    return (max if more else min)(medians, key=lambda name: medians[name]) if medians else None


def ratios(rows: Sequence[Row], peer: str, scenario: str, key: str) -> list[float]:
    """Returns our figure over the peer's, round by round."""
    ours, theirs = (values(rows, name, scenario, key) for name in (OURS, peer))
    return [ours[number] / theirs[number] for number in sorted(ours.keys() & theirs.keys())]


def markdown(rows: Sequence[Row], about: str) -> str:
    """Returns the tables of ``docs/performance.md``: medians, and ratios to the best peer with their spread."""
    names = services(rows)
    lines = [
        about,
        "",
        f"| | {' | '.join(names)} | to the best peer (wanted) |",
        "| --- |" + " --- |" * (len(names) + 1),
    ]
    for scenario, key, unit, more, wanted in MEASURES:
        cells = [_cell(list(values(rows, name, scenario, key).values())) for name in names]
        peer = best_peer(rows, scenario, key, more=more)
        found = ratios(rows, peer, scenario, key) if peer else []
        sign = "≥" if more else "≤"
        ratio = f"{_spread(found)} × {peer} ({sign} {wanted:g})" if found else ""
        lines.append(f"| {TITLES[scenario]}: {unit} | {' | '.join(cells)} | {ratio} |")
    for key, title in (("start_s", "start to first digit: s"), ("memory_mb", "resident after all that: MB")):
        cells = [_cell(list(values(rows, name, START, key).values())) for name in names]
        lines.append(f"| {title} | {' | '.join(cells)} | |")
    return "\n".join(lines) + "\n"


def _cell(found: Sequence[float]) -> str:
    return _number(statistics.median(found)) if found else ""


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _spread(found: Sequence[float]) -> str:
    return f"{statistics.median(found):.2f} ({min(found):.2f}–{max(found):.2f})"


def plot(rows: Sequence[Row]) -> bytes:
    """Returns a PNG on white: a panel for each measure, a bar for each service, whiskers from the least to the most."""
    figure = Figure(figsize=(6.4, 7.2), layout="constrained")
    panels = figure.subplots(3, 2).flat
    names = services(rows)[::-1]
    measures = [(f"{TITLES[scenario]}: {unit}", scenario, key) for scenario, key, unit, _, _ in MEASURES]
    for axes, (title, scenario, key) in zip(
        panels, [*measures, ("start to first digit: s", START, "start_s")], strict=True
    ):
        for place, name in enumerate(names):
            found = list(values(rows, name, scenario, key).values())
            if not found:
                continue
            middle = statistics.median(found)
            whiskers = [[middle - min(found)], [max(found) - middle]]
            color = _BLUE if name == OURS else _GREY
            axes.barh(place, middle, color=color, xerr=whiskers, error_kw={"linewidth": 1})
        axes.set_yticks(range(len(names)), names, fontsize=8)
        axes.tick_params(axis="x", labelsize=8)
        axes.set_title(title, fontsize=9)
        axes.spines[["top", "right"]].set_visible(False)
    png = BytesIO()
    figure.savefig(png, format="png", dpi=150, facecolor="white")
    return png.getvalue()
