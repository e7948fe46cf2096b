"""``digitgan dataset``: thousands of labelled digits, the same ones every time (``docs/datasets.md``)."""

from typing import Literal

Format = Literal["idx", "png", "npz", "csv"]  # how a dataset is written: ``digitgan.dataset.formats``
