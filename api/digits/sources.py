"""The seeds or the noise of a request."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from api.digits.seed_index import SeedIndex
from api.http import problems
from api.http.problems import ProblemError, at_pointer, invalid
from api.http.schemas import GenerateRequest
from api.upstream.coalescing import Rows
from serving.contract import MAX_SEED


@dataclass(frozen=True)
class IndexedSeeds:
    """A query for seeds of a kind, which the seed index of a version answers.

    Attributes:
        count: how many.
        digit: the digit of their images; None for any.
        curated: only curated images.
        start: the next ones from this seed on, up to ``count``; None: exactly ``count`` at random.
    """

    count: int
    digit: int | None
    curated: bool
    start: int | None = None

    def __len__(self) -> int:
        return self.count

    def choose(self, index: SeedIndex) -> Sequence[int]:
        """Returns seeds of this kind, none of them twice. Raises ProblemError (422) if ``index`` has too few."""
        fitting = index.seeds(self.digit, self.curated)
        kind = f"{'curated ' if self.curated else ''}{'digit' if self.digit is None else self.digit}s"
        if self.start is not None:
            following: list[int] = fitting[fitting >= self.start][: self.count].tolist()
            if following:
                return following
            detail = f"version {index.version} has no {kind} from this seed on in its index"
            raise invalid(at_pointer("/start", detail))
        if self.count > len(fitting):
            detail = f"{self.count} images; version {index.version} has {len(fitting)} {kind} in its index"
            raise invalid(at_pointer("/count", detail))
        chosen: list[int] = np.random.default_rng().choice(fitting, self.count, replace=False).tolist()
        return chosen

    def no_index(self) -> ProblemError:
        """Returns the problem of a version without an index."""
        detail = "the generator's version has no index of its seeds"
        fields = ["digit"] * (self.digit is not None) + ["curated"] * self.curated
        errors = [at_pointer(f"/{field}", detail) for field in fields]
        return ProblemError(problems.NO_SEED_INDEX, detail, errors=errors)


def rows_of(request: GenerateRequest) -> Rows | IndexedSeeds:
    """Returns the seeds or the noise of a request. ``count`` means seeds from ``start`` or a random seed on.

    Raises ProblemError (422) if they go beyond the last seed.
    """
    if request.source == "noise":
        return np.array(request.noise, np.float32)
    if request.source == "seeds":
        return request.seeds
    if request.digit is not None or request.curated:
        return IndexedSeeds(request.count, request.digit, request.curated, request.start)
    first = secrets.randbelow(MAX_SEED + 2 - request.count) if request.start is None else request.start
    if first + request.count > MAX_SEED + 1:
        raise invalid(at_pointer("/start", f"{request.count} seeds from here on would go beyond {MAX_SEED}"))
    return range(first, first + request.count)
