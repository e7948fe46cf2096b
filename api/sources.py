"""Where the noise of a request comes from, and how much of it a request may ask for."""

import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from api import images
from api.coalescing import Rows
from api.images import NPY, PNG
from api.inference import MAX_BATCH
from api.problems import at_pointer, invalid
from api.schemas import GenerateRequest
from api.settings import Settings
from api.zipstream import ZIP
from serving.contract import IMAGE_SIDE, MAX_SEED

STREAMED = (ZIP, NPY)
"""The formats that are sent while they are made."""

Noise = NDArray[np.float32]


@dataclass(frozen=True)
class SeedSource:
    """Noise from seeds. ``chosen``: the server picked them."""

    seeds: Sequence[int]
    chosen: bool = False

    def __len__(self) -> int:
        return len(self.seeds)

    def batches(self) -> Iterator[Rows]:
        """Yields n ≤ MAX_BATCH seeds at a time."""
        for start in range(0, len(self.seeds), MAX_BATCH):
            yield self.seeds[start : start + MAX_BATCH]


@dataclass(frozen=True)
class NoiseSource:
    """Noise as the caller gave it."""

    noise: Noise

    def __len__(self) -> int:
        return len(self.noise)

    def batches(self) -> Iterator[Rows]:
        """Yields float32 [n, 100] with n ≤ MAX_BATCH."""
        for start in range(0, len(self.noise), MAX_BATCH):
            yield self.noise[start : start + MAX_BATCH]


Source = SeedSource | NoiseSource


@dataclass(frozen=True)
class Pick:
    """So many seeds of a kind, which a version's index has to name: those of ``digit`` (None: any), curated or not.

    ``start``: the next ones from this seed on, up to ``count`` of them; None: at random, and exactly ``count``.
    """

    count: int
    digit: int | None
    curated: bool
    start: int | None = None

    def __len__(self) -> int:
        return self.count

    @property
    def fields(self) -> list[str]:
        """The request's fields that ask for the kind."""
        return ["digit"] * (self.digit is not None) + ["curated"] * self.curated


def source_of(request: GenerateRequest, settings: Settings, media_type: str) -> Source | Pick:
    """Returns where the request's noise comes from: for ``count`` seeds from ``start`` or a random place on, or a Pick
    if they have to be of a kind.

    Raises ProblemError (422) if the answer would have more images or pixels than ``settings`` allow.
    """
    field, count = next(
        (name, size)
        for name, size in (
            ("seeds", len(request.seeds)),
            ("noise", len(request.noise)),
            ("count", request.count),
        )
        if size
    )
    _check_size(field, count, request.scale, media_type, settings)
    if field == "noise":
        return NoiseSource(np.array(request.noise, np.float32))
    if field == "seeds":
        return SeedSource(request.seeds)
    if request.digit is not None or request.curated:
        return Pick(count, request.digit, request.curated, request.start)
    first = secrets.randbelow(MAX_SEED + 2 - count) if request.start is None else request.start
    if first + count > MAX_SEED + 1:
        raise invalid(at_pointer("/start", f"{count} seeds from here on would go beyond {MAX_SEED}"))
    return SeedSource(range(first, first + count), chosen=True)


def _check_size(field: str, count: int, scale: int, media_type: str, settings: Settings) -> None:
    streamed = media_type in STREAMED
    most = settings.max_stream_images if streamed and field != "noise" else settings.max_images
    if count > most:
        raise invalid(at_pointer(f"/{field}", f"{count} images; at most {most} are made as {media_type}"))
    if streamed:
        return  # memory doesn't grow with these
    height, width = count * IMAGE_SIDE, IMAGE_SIDE
    if media_type == PNG and count > 1:
        height, width = images.sheet_shape(count, IMAGE_SIDE)
    pixels = height * width * scale**2
    if pixels > settings.max_pixels:
        detail = f"{pixels} pixels; at most {settings.max_pixels} are made as {media_type}"
        raise invalid(at_pointer("/scale", detail), at_pointer(f"/{field}", detail))
