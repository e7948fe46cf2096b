"""Admission control: limits the images in progress. Requests beyond the limit get 503 immediately.

With I images in progress, of which R are made per second, an admitted request waits about I / R seconds.
"""

import asyncio
import re
from collections.abc import AsyncGenerator, Iterable, Iterator
from contextlib import AbstractContextManager, aclosing, contextmanager
from dataclasses import dataclass
from typing import Final, TypeVar

from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.routing import BaseRoute

from api.http.current_request import TIMEOUT_PARAMETER, time_limit
from api.http.problems import OVERLOADED, ProblemError
from api.middleware.keys import charge
from api.telemetry.metrics import Metrics
from api.upstream.inference import LARGEST_SMALL_ROWS

MIN_CHARGE_IMAGES: Final = 8  # of a request: one image takes about as long as 4 to 8 images of a large request
MAX_SMALL_BODY_BYTES: Final = 2048  # a longer body is not looked at to see whether its request is small
FULL: Final = "the service already makes as many images as it can at a time"
_LARGE_COUNT: Final = re.compile(rb'"(?:count|steps)"\s*:\s*[0-9.]{2}')

_T = TypeVar("_T")


@dataclass
class ImageBudget:
    """The images in progress for requests of one size. The last request admitted may exceed ``limit``."""

    limit: int
    in_progress: int = 0

    @contextmanager
    def count(self, images: int) -> Iterator[None]:
        """Counts ``images`` as in progress during the block; at least MIN_CHARGE_IMAGES, at most LARGEST_SMALL_ROWS."""
        images = min(max(images, MIN_CHARGE_IMAGES), LARGEST_SMALL_ROWS)
        self.in_progress += images
        try:
            yield
        finally:
            self.in_progress -= images


class AdmissionControl:
    """Admits requests while their budget has room. Small and large requests have ``max_images`` each.

    Neither size can block the other. A request of any size is admitted to an idle service. Only requests to those of
    ``routes`` that take ``Request-Timeout`` can be refused early: they make images.
    ``counts_arrivals``: requests that arrive together are refused early beyond the room. Where API keys are checked, an
    arrival must not count before its key is known.
    """

    def __init__(
        self, max_images: int, metrics: Metrics, routes: Iterable[BaseRoute], *, counts_arrivals: bool
    ) -> None:
        self.small, self.large = ImageBudget(max_images), ImageBudget(max_images)
        metrics.images_in_flight.labels("small").set_function(lambda: self.small.in_progress)
        metrics.images_in_flight.labels("large").set_function(lambda: self.large.in_progress)
        self._counts_arrivals = counts_arrivals
        self._refusals = metrics.refusals
        self._arrived: list[str] = []
        self._image_routes = [
            (method, route.path_regex, route.path)
            for route in routes
            if isinstance(route, APIRoute) and TIMEOUT_PARAMETER in (route.openapi_extra or {}).get("parameters", ())
            for method in route.methods or ()
        ]

    def image_route(self, method: str, path: str) -> str:
        """Returns the template of the route that a request takes, if that route makes images; otherwise ""."""
        for allowed, pattern, template in self._image_routes:
            if method == allowed and pattern.match(path):
                return template
        return ""

    @property
    def crowded(self) -> bool:
        """Whether the small budget is full, or will be once the requests that just arrived reach ``images``."""
        return self.small.in_progress + MIN_CHARGE_IMAGES * len(self._arrived) >= self.small.limit

    def note_arrival(self, route: str, body: bytearray) -> None:
        """Notes that a whole small request has arrived, until its task has had a step: then ``images`` counts it."""
        if self._counts_arrivals and _surely_small(route, body):
            self._arrived.append(route)
            asyncio.get_running_loop().call_soon(self._arrived.pop)

    def refuses_early(self, route: str, body: bytearray) -> bool:
        """Returns whether ``images`` would surely refuse a request to ``route`` now; it may refuse more."""
        large_full = self.large.in_progress >= self.large.limit
        return self.crowded and (large_full or _surely_small(route, body))

    def images(
        self, request: Request, count: int, pointer: str = "", charged: int | None = None
    ) -> AbstractContextManager[None]:
        """Counts ``request`` as ``count`` images during the block, and charges its API key for these, or ``charged``.

        ``pointer``: the field of the body that says how many images; without it, no more than one is charged. Raises
        ProblemError: 503 if there is no room, and what ``keys.charge`` raises.
        """
        budget = self.small if count <= LARGEST_SMALL_ROWS else self.large
        if budget.in_progress >= budget.limit:
            self._refusals.labels(request.scope["route"].path).inc()
            raise ProblemError(OVERLOADED, FULL)
        if pointer:
            charge(request, count if charged is None else charged, pointer)
        return budget.count(count)

    async def stream(self, request: Request, count: int, first: _T, parts: AsyncGenerator[_T]) -> AsyncGenerator[_T]:
        """Yields ``first`` and then ``parts`` for an admitted request of ``count`` images, and closes ``parts``.

        The request counts only while a part is made, not while it is read. Each part has the time of a request.
        """
        budget = self.small if count <= LARGEST_SMALL_ROWS else self.large
        async with aclosing(parts):
            yield first
            while True:
                with budget.count(count):
                    async with time_limit(request):
                        part = await anext(parts, None)
                if part is None:
                    return
                yield part


def _surely_small(route: str, body: bytearray) -> bool:
    """Whether a request asks for at most LARGEST_SMALL_ROWS images, judged without parsing its JSON body."""
    return (
        route != "/dataset"
        and len(body) <= MAX_SMALL_BODY_BYTES
        and body.count(b",") < LARGEST_SMALL_ROWS
        and not _LARGE_COUNT.search(body)
    )
