"""The quality gate: a version is promoted only if its model card meets the thresholds.

Thresholds are a JSON file: for each model, bounds for the figures at dotted paths of the model card::

    {"generator": {"evaluation.figures.frechet_distance": {"max": 1.0}}}

``thresholds.json`` beside this module is the default.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from serving.errors import UserError

DEFAULT_THRESHOLDS: Final = Path(__file__).with_name("thresholds.json")

Thresholds = Mapping[str, Mapping[str, float]]
"""By the path of a figure, its bounds ``min`` and ``max``, or one of them; inclusive."""

_WORDS: Final = {"min": "at least", "max": "at most"}


def read_thresholds(path: Path = DEFAULT_THRESHOLDS) -> dict[str, Thresholds]:
    """Reads the thresholds of each model. Raises UserError."""
    try:
        content = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise UserError(f"--thresholds {path}: {error.strerror}. Give a JSON file with the thresholds") from error
    except ValueError as error:
        raise UserError(f"--thresholds {path}: {error}") from error
    if not isinstance(content, dict) or not all(isinstance(figures, dict) for figures in content.values()):
        raise UserError(f"{path}: should hold an object for each model")
    for model, figures in content.items():
        for name, bounds in figures.items():
            place = f"{path}: {model}: {name}"
            if not isinstance(bounds, dict) or not bounds or not bounds.keys() <= _WORDS.keys():
                raise UserError(f'{place}: should be {{"min": …}}, {{"max": …}} or both')
            for side, bound in bounds.items():
                if isinstance(bound, bool) or not isinstance(bound, int | float) or not math.isfinite(bound):
                    raise UserError(f"{place}: {side}: should be a number, not {json.dumps(bound)}")
    return content


def shortfalls(card: Mapping[str, Any], thresholds: Thresholds) -> list[str]:
    """Returns a sentence for each figure in which a model card falls short; none if it passes."""
    found = []
    for name, bounds in thresholds.items():
        needed = " and ".join(f"{words} {bounds[side]:g}" for side, words in _WORDS.items() if side in bounds)
        value = figure(card, name)
        if value is None:
            found.append(f"the model card has no {name}, which has to be {needed}")
        elif not bounds.get("min", -math.inf) <= value <= bounds.get("max", math.inf):
            found.append(f"{name} is {value:.4g}, and has to be {needed}")
    return found


def figure(card: Mapping[str, Any], path: str) -> float | None:
    """Returns the figure at a dotted path of a model card; None where there is none."""
    value: Any = card
    for name in path.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None
