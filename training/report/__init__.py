"""The report of an evaluation and of a run: one HTML page that needs no other file."""

from training.report.page import EVALUATION_FILE, PICTURES_FILE, report
from training.report.pictures import choose

__all__ = ["EVALUATION_FILE", "PICTURES_FILE", "choose", "report"]
