"""From the rows of a run to its table."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any, Final

from benchmarks.marked import markdown_table
from benchmarks.peers.load import SCENARIOS
from benchmarks.peers.services import OURS

MEASURES: Final = (
    # Scenario, key of its rows, unit, whether more is better, and the ratio to the best peer that is wanted.
    ("1x1", "p50_ms", "ms p50", False, 1.0),
    ("1x16", "images_per_s", "images/s", True, 2.0),
    ("1x64", "images_per_s", "images/s", True, 2.0),
    ("1x64", "p99_ms", "ms p99", False, 0.5),
    ("16x1", "images_per_s", "images/s", True, 2.0),
    ("16x8", "images_per_s", "images/s", True, 2.0),
    ("256x1", "images_per_s", "images/s", True, 2.0),
)
START: Final = "start"


def markdown(rows: Sequence[Mapping[str, Any]], about: str) -> str:
    """Returns the table of ``docs/performance.md``: medians, and ratios to the best peer with their spread."""
    services = sorted({row["service"] for row in rows}, key=lambda name: (not name.startswith(OURS), name))
    peers = [name for name in services if not name.startswith(OURS)]

    def values(service: str, scenario: str, key: str) -> dict[int, float]:
        found = [row for row in rows if (row["service"], row["scenario"]) == (service, scenario)]
        return {row["round"]: row[key] for row in found if key in row}

    def cells(scenario: str, key: str) -> list[str]:
        medians = [statistics.median(values(name, scenario, key).values() or [float("nan")]) for name in services]
        return [f"{median:,.0f}" if median >= 100 else f"{median:.3g}" for median in medians]

    def ratio(scenario: str, key: str, more: bool) -> str:
        """Returns our figure over the best peer's, round by round: the median, the least and the most."""
        best = (max if more else min)(peers, key=lambda name: statistics.median(values(name, scenario, key).values()))
        ours, theirs = (values(name, scenario, key) for name in (OURS, best))
        ratios = [ours[number] / theirs[number] for number in sorted(ours.keys() & theirs.keys())]
        return f"{statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f}) × {best}"

    titles = {scenario.name: scenario.title for scenario in SCENARIOS}
    table = []
    for scenario, key, unit, more, wanted in MEASURES:
        compared = (
            f"{ratio(scenario, key, more)} ({'≥' if more else '≤'} {wanted:g})" if peers and OURS in services else ""
        )
        table.append([f"{titles[scenario]}: {unit}", *cells(scenario, key), compared])
    table.append(["start to first digit: s", *cells(START, "start_s"), ""])
    table.append(["resident after all that: MB", *cells(START, "memory_mb"), ""])
    return f"{about}\n\n{markdown_table(['', *services, 'to the best peer (wanted)'], *table)}"
