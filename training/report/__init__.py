"""The report of an evaluation and of a run: one HTML page that needs nothing else."""

from training.report.page import read_evaluation, write_report
from training.report.pictures import Pictures, choose

__all__ = ["Pictures", "choose", "read_evaluation", "write_report"]
