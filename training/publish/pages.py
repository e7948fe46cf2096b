"""Signatures that serve a table page by page: the seed index and the story of a generator."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from serving.contract import PAGES, STORY, STORY_BYTES, STORY_PAGE


def paged(tables: Mapping[str, NDArray[Any]], total_name: str, total: int) -> Any:
    """Returns a tf.function from page numbers, int64 [N], to rows of the tables [pages, …] and the total, int64 [N].

    A page number out of range gives the nearest page.
    """
    pages = len(next(iter(tables.values())))

    @tf.function(input_signature=[tf.TensorSpec([None], tf.int64, PAGES)])  # type: ignore[untyped-decorator]
    def read(page_numbers: Any) -> dict[str, Any]:
        found = tf.clip_by_value(page_numbers, 0, pages - 1)
        rows = {name: tf.gather(tf.constant(table), found) for name, table in tables.items()}
        return {**rows, total_name: tf.zeros_like(found) + total}

    return read


def story_table(story: bytes) -> dict[str, NDArray[Any]]:
    """The pages of a story, uint8 [pages, STORY_PAGE], the last one filled up with zeros."""
    filled = story.ljust(-(-len(story) // STORY_PAGE) * STORY_PAGE, b"\0")
    return {STORY: np.frombuffer(filled, np.uint8).reshape(-1, STORY_PAGE)}


def story_graph(story: bytes) -> Any:
    """Returns the signature ``story`` as a tf.function (serving/contract.py describes its tensors)."""
    return paged(story_table(story), STORY_BYTES, len(story))
