"""``digitgan dataset``: thousands of labelled digits, the same ones every time (``docs/datasets.md``)."""

from typing import Final, Literal

Format = Literal["idx", "png", "npz", "csv"]
"""How a dataset is written (``digitgan.dataset.formats``)."""

FORMAT_HELP: Final = (
    "'idx': MNIST's four files. 'npz': one file, as Keras's mnist.npz. 'png': a folder for each digit. "
    "'csv': a line for each image."
)
