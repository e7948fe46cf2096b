"""What tests of the training share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from training.data import Dataset, load


@pytest.fixture(scope="session")
def dataset(digits_npz: Path) -> Dataset:
    return load(digits_npz)


@pytest.fixture
def eager() -> Iterator[None]:
    """Runs each tf.function step by step: a few steps are done sooner than a graph of them is traced."""
    import tensorflow as tf

    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)
