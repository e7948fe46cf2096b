"""The quality gate: a version whose model card falls short of the thresholds isn't promoted.

Thresholds are a JSON file: for each model, dotted paths into the model card with the least or the greatest figure that
will do::

    {"generator": {"evaluation.figures.frechet_distance": {"max": 1.0}}}

``thresholds.json`` beside this module is the default: Fréchet distance, coverage and class balance (the divergence of
the digits' shares from the real ones') of the generator, the area under the discriminator's curve, the classifier's
accuracy.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

DEFAULT_THRESHOLDS: Final = Path(__file__).with_name("thresholds.json")


class ThresholdsError(ValueError):
    """A thresholds file that can't be read, or says what can't be. The message names the file and the field."""


@dataclass(frozen=True)
class Threshold:
    """What one figure of a model card has to be. ``least`` and ``greatest`` are inclusive; None: any."""

    figure: str
    least: float | None
    greatest: float | None

    def shortfall(self, card: Mapping[str, Any]) -> str | None:
        """Returns in what the card falls short, with the figures; None if in nothing."""
        value = figure(card, self.figure)
        if value is None:
            return f"the model card doesn't tell {self.figure}, which has to be {self}"
        if self.least is not None and not value >= self.least:
            return f"{self.figure} is {value:.4g}, and has to be {self}"
        if self.greatest is not None and not value <= self.greatest:
            return f"{self.figure} is {value:.4g}, and has to be {self}"
        return None

    def __str__(self) -> str:
        least = f"at least {self.least:g}" if self.least is not None else ""
        greatest = f"at most {self.greatest:g}" if self.greatest is not None else ""
        return " and ".join(filter(None, (least, greatest)))


def read_thresholds(path: Path = DEFAULT_THRESHOLDS) -> dict[str, tuple[Threshold, ...]]:
    """Reads the thresholds of each model. Raises ThresholdsError."""
    try:
        content = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ThresholdsError(f"--thresholds {path}: {error.strerror}. Give a JSON file with the thresholds") from error
    except ValueError as error:
        raise ThresholdsError(f"--thresholds {path}: {error}") from error
    if not isinstance(content, dict) or not all(isinstance(figures, dict) for figures in content.values()):
        raise ThresholdsError(f"{path}: should hold an object for each model")
    return {
        model: tuple(_threshold(f"{path}: {model}", name, bounds) for name, bounds in figures.items())
        for model, figures in content.items()
    }


def shortfalls(card: Mapping[str, Any], thresholds: tuple[Threshold, ...]) -> list[str]:
    """Returns everything in which a model card falls short; nothing: it passes."""
    return [told for threshold in thresholds if (told := threshold.shortfall(card))]


def _threshold(place: str, name: str, bounds: object) -> Threshold:
    if not isinstance(bounds, dict) or not bounds or not bounds.keys() <= {"min", "max"}:
        raise ThresholdsError(f'{place}: {name}: should be {{"min": …}}, {{"max": …}} or both')
    for side, bound in bounds.items():
        if isinstance(bound, bool) or not isinstance(bound, int | float) or not math.isfinite(bound):
            raise ThresholdsError(f"{place}: {name}: {side}: should be a number, not {json.dumps(bound)}")
    return Threshold(name, bounds.get("min"), bounds.get("max"))


def figure(card: Mapping[str, Any], path: str) -> float | None:
    """Returns the figure at a dotted path of a model card; None where there is none."""
    value: Any = card
    for name in path.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None
