"""LoadedVersion, on a model that says how it was run."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import grpc
import numpy as np
import pytest
from numpy.typing import NDArray

from serving.contract import BATCH_SIZES
from serving.model_server.errors import ServingError
from serving.model_server.loaded_version import ROWS_AT_ONCE, LoadedVersion
from serving.model_server.saved_model import SavedModel
from serving.model_server.signature import Arrays
from tests.serving.model_server.client import SECONDS


class Doubler:
    """A model: y = 2 x. It runs while ``open`` is set, and remembers each x."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.open.set()
        self.runs: list[list[float]] = []
        self.at_once = 0

    def run(self, signature_name: str, inputs: Arrays) -> dict[str, NDArray[Any]]:
        self.at_once += 1
        assert self.at_once == 1
        self.runs.append(np.asarray(inputs["x"], np.float64).ravel().tolist())
        assert self.open.wait(SECONDS)
        self.at_once -= 1
        return {"y": 2 * inputs["x"]}


def doubled(version: LoadedVersion, *x: float) -> list[float]:
    result: list[float] = version.run("double", {"x": np.array(x, np.float32)})["y"].tolist()
    return result


@pytest.fixture
def model() -> Doubler:
    return Doubler()


@pytest.fixture
def version(model: Doubler) -> LoadedVersion:
    return LoadedVersion(cast("SavedModel", model), 256)


def test_rows_are_filled_up_to_a_size_that_is_warmed_up(model: Doubler, version: LoadedVersion) -> None:
    assert doubled(version, 1, 2, 3, 4, 5) == [2, 4, 6, 8, 10]
    assert model.runs == [[1, 2, 3, 4, 5, 5, 5, 5]]


@pytest.mark.parametrize("rows", [1, ROWS_AT_ONCE, ROWS_AT_ONCE + 1, 200, 256])
def test_many_rows_run_in_pieces(model: Doubler, version: LoadedVersion, rows: int) -> None:
    assert doubled(version, *range(rows)) == [2 * x for x in range(rows)]
    assert {len(run) for run in model.runs} <= {size for size in BATCH_SIZES if size <= ROWS_AT_ONCE}


def test_more_rows_than_a_request_may_have_are_invalid(model: Doubler, version: LoadedVersion) -> None:
    with pytest.raises(ServingError, match=r"257 is larger than .* 256") as caught:
        doubled(version, *range(257))
    assert caught.value.code is grpc.StatusCode.INVALID_ARGUMENT
    unlimited = LoadedVersion(cast("SavedModel", model), None)
    assert len(doubled(unlimited, *range(257))) == 257
    assert [len(run) for run in model.runs] == [257]


def test_one_request_runs_at_a_time_and_one_whose_client_has_left_is_not_run(
    model: Doubler, version: LoadedVersion
) -> None:
    model.open.clear()
    with ThreadPoolExecutor(8) as pool:
        futures = [pool.submit(doubled, version, number) for number in range(6)]
        left = pool.submit(version.run, "double", {"x": np.ones(1)}, lambda: False)
        model.open.set()
        assert [future.result(SECONDS) for future in futures] == [[2 * number] for number in range(6)]
        with pytest.raises(ServingError) as caught:
            left.result(SECONDS)
    assert caught.value.code is grpc.StatusCode.CANCELLED
    assert len(model.runs) == 6
