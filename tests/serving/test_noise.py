"""The way from a seed to its noise is the one that docs/seeds.md specifies, to the last bit; the ways between noise."""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from scipy import special

from docs import seed_to_noise
from serving.contract import MAX_SEED
from serving.interpolation import lerp, path, slerp
from serving.noise import _normal, noise_from_seeds

SEEDS_PAGE = Path(__file__).parents[2] / "docs" / "seeds.md"

GOLDEN = {
    0: "3005a86ee9d6931ddd8eef58d20d3ff88eefe75c8dcf4d06f84a16388256626d",
    1: "0c0e9dc75da57e745f60290f8e7924562c9530e4b8c7d88f00263f21a86160bf",
    7: "323b0eb98d5739044b1d40381630d7c687a6e85095acc91a372e84dae16d8299",
    2**32 - 1: "58cc1f5f312a8558c0fb86352e3ef9fc9dcb742b630975cb8212c2701b5f3c80",
    2**32: "7dfe2f9d1e3e3cd308d969e65ac27c8a18ee78f009ca58d27f60ead3c91c2417",
    2**32 + 1: "06e95c96c3a9161c4214a03dea464ff35476a3e3285627930dbee00d0dee8d07",
    2**53 - 1: "62863f626f5ad90f68eb2ef440c1d011ebbd08122758ee44a0af4b56a5113d55",
}
"""By seed, the SHA-256 of its hundred numbers as little-endian float32."""


@pytest.mark.parametrize("seed", GOLDEN)
def test_golden_values(seed: int) -> None:
    (row,) = noise_from_seeds([seed])
    assert row.dtype == np.float32
    assert hashlib.sha256(row.astype("<f4").tobytes()).hexdigest() == GOLDEN[seed]


def test_the_page_and_the_service_agree_bit_for_bit_and_its_example_is_what_it_says() -> None:
    seeds = [*GOLDEN, *range(100, 140)]
    written = np.array([seed_to_noise.noise(seed) for seed in seeds], np.float32)
    assert np.array_equal(written.view(np.uint32), noise_from_seeds(seeds).view(np.uint32))
    assert f"`noise(7)[:3]` is `{seed_to_noise.noise(7)[:3]}`" in SEEDS_PAGE.read_text("utf-8")


def test_the_pages_philox_gives_the_published_known_answer() -> None:
    """Random123's known-answer file: philox4x64, 10 rounds, counter 0, key 0."""
    published = [0x16554D9ECA36314C, 0xDB20FE9D672D0FDC, 0xD7E772CEE186176B, 0x7E68B68AEC7BA23B]
    assert seed_to_noise.philox4x64([0, 0, 0, 0], [0, 0]) == published


def test_threads_do_not_disturb_each_other() -> None:
    seeds = list(range(64))
    expected = noise_from_seeds(seeds)
    with ThreadPoolExecutor(8) as pool:
        for result in pool.map(lambda _: noise_from_seeds(seeds), range(40)):
            assert np.array_equal(result, expected)


def test_the_quantile_is_as_good_as_scipys_and_odd_out_to_its_ends() -> None:
    """One number in 36 billion lies in the far tail, so no seed that a test could try reaches it."""
    tail = np.arange(0, 100_000, 7, dtype=np.uint64) << np.uint64(11)
    words = np.concatenate([np.random.Philox(key=5).random_raw(500_000), tail])
    q = ((words >> np.uint64(11)).astype(np.int64) - 2**52 + 0.5) * 2.0**-53
    expected = np.copysign(special.ndtri(0.5 - np.abs(q)), q)
    assert np.max(np.abs(_normal(words) / expected - 1)) < 2e-15
    assert np.array_equal(_normal(~tail), -_normal(tail))


@pytest.mark.parametrize("seed", [-1, MAX_SEED + 1, 2**64, True, False, 1.0, "1", None, np.int64(3)])
def test_what_is_not_a_seed_is_refused_by_name(seed: object) -> None:
    with pytest.raises(ValueError, match=r"^seed 1: .* is not an integer from 0 to 9007199254740991") as raised:
        noise_from_seeds([0, seed])  # type: ignore[list-item]
    assert repr(seed) in str(raised.value)


def test_an_arc_of_a_right_angle_worked_out_by_hand() -> None:
    start, end = np.array([1, 0], np.float32), np.array([0, 1], np.float32)
    half = np.sqrt(0.5)
    third = [np.cos(np.pi / 6), np.sin(np.pi / 6)]
    np.testing.assert_allclose(slerp(start, end, np.array([1 / 3, 0.5])), [third, [half, half]], rtol=1e-6)
    np.testing.assert_allclose(lerp(start, end, np.array([0.25])), [[0.75, 0.25]])


@pytest.mark.parametrize("end", [[1, 2], [2, 4], [-1, -2], [0, 0]], ids=["same", "longer", "opposite", "zero"])
def test_where_there_is_no_one_arc_it_is_the_line(end: list[int]) -> None:
    start, last = np.array([1, 2], np.float32), np.array(end, np.float32)
    shares = np.linspace(0, 1, 5)
    np.testing.assert_array_equal(slerp(start, last, shares), lerp(start, last, shares))


def test_an_arc_between_the_largest_numbers_stays_finite() -> None:
    """It leaves what float32 holds: found by schemathesis, as a 500."""
    most = np.finfo(np.float32).max
    start, end = np.full(100, most), np.full(100, most)
    end[50:] = -most
    found = path(np.stack([start, end]), 4, "slerp", loop=False)
    assert found.dtype == np.float32
    assert np.isfinite(found).all()
    assert np.array_equal(found[[0, -1]], np.stack([start, end]))
