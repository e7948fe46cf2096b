"""Admission control: a bound on the work under way, counted in images. Who comes beyond it is told so at once.

A bound on what is under way bounds the wait of everybody who is let in: with I images in flight and R of them made a
second, it is about I / R seconds. Requests that would have to wait longer get their 503 while it still helps them, and
cost next to nothing: most are refused before their body is read.

Small requests and large ones have a room each, of the same size. Large ones are made in slices that take turns with
everybody's (``api.coalescing``), so one counts as much as the largest small one, however many images it wants, and
neither kind can keep the other out. A request comes in while its room isn't full, also where it then overflows: so
every size has the same chance, and a request of any size finds an idle service open.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final, TypeVar

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.coalescing import MOST_SHARED_ROWS
from api.metrics import Metrics
from api.problems import OIP_PREFIX, OVERLOADED, ProblemError, problem_response

LARGEST_SMALL: Final = MOST_SHARED_ROWS
"""Images. A request of more has calls of its own, in slices, and counts as so many."""

LEAST: Final = 8
"""Images that a request counts as at the least: a request for one takes about as long as 4 to 8 of a large one."""

TICKET: Final = "ticket"
"""Where a request's ticket is in its ``scope["state"]``."""

_T = TypeVar("_T")


@dataclass(frozen=True)
class GatedRoute:
    """A route whose requests make images. ``path``: its template, as the router has it."""

    path: str
    method: str = "POST"


_PLAIN: Final = {path: GatedRoute(path) for path in ("/generate", "/dataset", "/interpolate", "/score")}
_DIGIT: Final = GatedRoute("/digits/{seed}.png", "GET")
_INFER: Final = GatedRoute(f"{OIP_PREFIX}/models/{{model}}/infer")
_INFER_VERSION: Final = GatedRoute(f"{OIP_PREFIX}/models/{{model}}/versions/{{version}}/infer")
ROUTES: Final = (*_PLAIN.values(), _DIGIT, _INFER, _INFER_VERSION)


def gated_route(method: str, path: str) -> GatedRoute | None:
    """Returns the route if a request to it makes images; None for all others, which are never refused."""
    route = _PLAIN.get(path)
    if route is None:
        if path.startswith("/digits/"):
            route = _DIGIT
        elif path.startswith(f"{OIP_PREFIX}/models/") and path.endswith("/infer"):
            route = _INFER_VERSION if "/versions/" in path else _INFER
    return route if route is not None and route.method == method else None


class _Room:
    """Images of one kind of request. Those in flight may exceed ``most`` by the last request that came in."""

    def __init__(self, most: int, size: str, metrics: Metrics) -> None:
        self.most = most
        self.in_flight = 0
        self._gauge = metrics.images_in_flight.labels(size)
        self._admitted = metrics.images_admitted.labels(size)

    def resize(self, by: int) -> None:
        self.in_flight += by
        self._gauge.set(self.in_flight)

    def count(self, images: int) -> None:
        self._admitted.inc(images)


class Gate:
    """Where requests come in. ``most_images``: in flight, of small requests and of large ones each.

    ``quick``: refusals may skip what other layers would have added (an access log's line, a span, CORS fields).
    """

    def __init__(self, most_images: int, metrics: Metrics, *, quick: bool) -> None:
        self.quick = quick
        self.metrics = metrics
        self.small = _Room(most_images, "small", metrics)
        self.large = _Room(most_images, "large", metrics)

    @property
    def full(self) -> bool:
        """Whether no request can come in, whatever it wants: how much that is has yet to be read."""
        return self.small.in_flight >= self.small.most

    def refusal(self, route: GatedRoute) -> ProblemError:
        """Returns what a request to ``route`` is told that can't come in, and counts it."""
        self.metrics.refusals.labels(route.path).inc()
        return REFUSAL


class Ticket:
    """What one request counts for at the gate: nothing at first, and nothing again once it is closed."""

    __slots__ = ("_closed", "_full", "_gate", "_images", "_room", "departed", "route", "task")

    def __init__(self, gate: Gate, route: GatedRoute) -> None:
        self.route = route
        self.task: asyncio.Task[object] | None = None
        self.departed = False
        self._gate = gate
        self._room = gate.small
        self._images = self._full = 0
        self._closed = False

    @property
    def counts(self) -> bool:
        """Whether it has been let in."""
        return self._images > 0

    def enter(self, images: int) -> bool:
        """Counts the request as one for ``images``; returns False, and changes nothing, if they find no room."""
        room = self._gate.small if images <= LARGEST_SMALL else self._gate.large
        others = room.in_flight - (self._images if room is self._room else 0)
        if others >= room.most:
            return False
        self._set(0)
        self._room = room
        self._full = min(max(images, LEAST), LARGEST_SMALL)
        self._set(self._full)
        return True

    def made(self) -> None:
        """Counts nothing while the answer, or what there is of it, is on its way.

        What it holds meanwhile is memory, which ``api.connections`` bounds: room that it kept would be others' for as
        long as its client likes.
        """
        self._set(0)

    def making(self) -> None:
        """Counts in full again: more of the answer is made."""
        self._set(self._full)

    def close(self) -> None:
        """Counts nothing, for good."""
        self._set(0)
        self._closed = True
        self.task = None

    def depart(self) -> None:
        """Ends the request's work: its client has left."""
        if not self.departed and not self._closed:
            self.departed = True
            if self.task is not None:
                self.task.cancel()

    def _set(self, images: int) -> None:
        if images != self._images and not self._closed:
            self._room.resize(images - self._images)
            self._images = images

    def admit(self, images: int) -> None:
        """Counts the request as one for ``images``. Raises ProblemError (503) if they find no room."""
        if not self.enter(images):
            raise self._gate.refusal(self.route)
        self._room.count(images)


REFUSAL: Final = ProblemError(OVERLOADED, "as many images are being made as this service takes on at a time")


def admit(request: Request, images: int) -> None:
    """Counts ``request`` as one for ``images``, now that their number is known.

    Raises ProblemError (503) if they find no room.
    """
    ticket: Ticket = request.scope["state"][TICKET]
    ticket.admit(images)


async def streamed(request: Request, first: _T, parts: AsyncGenerator[_T]) -> AsyncGenerator[_T]:
    """Yields ``first`` and then ``parts``, and closes them.

    While the client takes a part, however slowly, the request keeps nobody out who makes images meanwhile.
    """
    ticket: Ticket = request.scope["state"][TICKET]
    async with aclosing(parts):
        yield first
        ticket.making()
        async for part in parts:
            ticket.made()
            yield part
            ticket.making()


class AdmitRequests:
    """ASGI middleware: refuses requests while there is no room, before their body is read; gives tickets to the others.

    It takes the ticket back when the answer begins, and ends the work of a request whose client has left, if the server
    tells so (``api.protocol`` does).
    """

    def __init__(self, app: ASGIApp, gate: Gate) -> None:
        self._app = app
        self._gate = gate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        route = gated_route(scope["method"], scope["path"]) if scope["type"] == "http" else None
        if route is None:
            await self._app(scope, receive, send)
            return
        state = scope.setdefault("state", {})
        ticket: Ticket = state.setdefault(TICKET, Ticket(self._gate, route))
        if self._gate.full and not ticket.counts:
            scope["route"] = route  # as the router would, for metrics and traces
            await problem_response(self._gate.refusal(route), scope["path"])(scope, receive, send)
            return

        async def noted(message: Message) -> None:
            if message["type"] == "http.response.start":
                ticket.made()
            await send(message)

        task = ticket.task = asyncio.current_task()
        assert task
        try:
            if not ticket.departed:
                await self._app(scope, receive, noted)
        except asyncio.CancelledError:
            if not ticket.departed:
                raise
            task.uncancel()
        finally:
            ticket.close()
