"""What is known of a request in progress: its id, its waits for the model server, the versions that answered it.

``current`` is the request in progress: calls of the model server add their time to it, and every line of the log
carries its id.
"""

import random
import re
from collections.abc import Iterable
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Final

from opentelemetry import trace

HEADER: Final = "x-request-id"
_VALID_ID: Final = re.compile(rb"[A-Za-z0-9._~:/+=@-]{1,128}")
"""What can be logged, and sent on, without escapes."""


@dataclass(slots=True)
class Observation:
    """What is known so far of a request in progress.

    ``model_seconds``: its waits for the model server. ``versions``: of the models that have answered it.
    """

    request_id: str
    model_seconds: float = 0.0
    versions: dict[str, int] = field(default_factory=dict)


current: Final[ContextVar[Observation | None]] = ContextVar("observation", default=None)


def note_call(model: str, version: int | None, seconds: float) -> None:
    """Notes a call of the model server for the request that made it. ``version``: the one that answered, if any."""
    if under_way := current.get():
        under_way.model_seconds += seconds
        if version is not None:
            under_way.versions[model] = version
            trace.get_current_span().set_attribute(f"digitgan.version.{model}", version)


def request_id(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """Returns the caller's id of the request where it is a valid one, and a new one otherwise."""
    given = dict(headers).get(HEADER.encode(), b"")
    if _VALID_ID.fullmatch(given):
        return given.decode()
    return f"{random.getrandbits(128):032x}"  # a name and no secret: refusals need thousands a second
