"""What a dataset is to be: the options, and what follows from them alone."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from digitgan.dataset import Format
from serving.contract import CLASSES
from serving.dataset import CONFIDENCE_FLOOR, Balance, quotas

SEEDS_APART: Final = 2**32  # between the first seeds of datasets, of which there is room for 2^21


@dataclass(frozen=True)
class Plan:
    """The options of a dataset with ``train`` and ``test`` digits."""

    train: int
    test: int
    format: Format = "idx"
    balance: Balance = "uniform"
    confidence_floor: float = CONFIDENCE_FLOOR
    logit_floor: float | None = None
    seed: int = 0  # which dataset: it looks at the generator's seeds from seed · 2^32 on
    generator: int | None = None  # the generator's version; None: the newest when the dataset begins

    @property
    def count(self) -> int:
        """The digits of both parts."""
        return self.train + self.test

    @property
    def first_seed(self) -> int:
        return self.seed * SEEDS_APART

    @property
    def quotas(self) -> list[int] | None:
        """How many of each digit both parts have together; None if that is left to the generator."""
        train, test = quotas(self.train, self.balance), quotas(self.test, self.balance)
        return None if train is None or test is None else [a + b for a, b in zip(train, test, strict=True)]

    def parts(self, labels: NDArray[np.uint8]) -> dict[str, NDArray[np.int64]]:
        """Returns the places of the digits in the parts "train" and "test", in their order; without an empty part.

        ``labels``, uint8 [count], are in the order of the seeds. The shuffle depends on ``seed`` alone. Without it,
        the digits that the generator makes least often would come last.
        """
        # NumPy guarantees the stream of a bit generator, not that of a distribution (NEP 19).
        order = np.argsort(np.random.Philox(key=self.seed).random_raw(len(labels)), kind="stable")
        test_quotas = quotas(self.test, self.balance)
        in_test = np.zeros(len(labels), np.bool_)
        if test_quotas is None:
            in_test[: self.test] = True
        else:
            for digit in range(CLASSES):
                in_test[np.flatnonzero(labels[order] == digit)[: test_quotas[digit]]] = True
        parts = {"train": order[~in_test], "test": order[in_test]}
        return {name: places for name, places in parts.items() if len(places)}
