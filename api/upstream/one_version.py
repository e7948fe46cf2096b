"""Answers that are all of one version of a model, also where the model is swapped in the middle."""

from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from api.http.problems import MODEL_NOT_SERVED, ProblemError
from serving.tf_serving.client import VersionNotFoundError

_ATTEMPTS: Final = 2

_T = TypeVar("_T")


async def retry_on_swap(
    model: str,
    version: int | None,
    attempt: Callable[[], Awaitable[_T]],
    before_retry: Callable[[], None] = lambda: None,
) -> _T:
    """Returns what ``attempt`` returns. If a version that answers is withdrawn meanwhile, its successor starts again.

    Args:
        model, version: what the request names; version None means the newest.
        attempt: makes the whole answer, by one version of each model.
        before_retry: forgets which version is the newest, where that is cached.

    Raises VersionNotFoundError for the version that the request names; ProblemError (503) if successors are withdrawn.
    """
    for _ in range(_ATTEMPTS):
        try:
            return await attempt()
        except VersionNotFoundError as error:
            if version is not None and error.model == model:
                raise
            replaced = error.model
            before_retry()
    raise ProblemError(MODEL_NOT_SERVED, f"{replaced} was replaced {_ATTEMPTS} times meanwhile")
