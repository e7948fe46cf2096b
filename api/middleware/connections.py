"""Limits on connections: how many there are, and how long a client may take to read its answers.

A reverse proxy usually does this. These limits keep the gateway's memory bounded without one.
"""

import resource
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Protocol

MIN_READ_BYTES: Final = 64 * 2**10
"""A client has to read this much of its answer within the timeout, or all that is left."""

STREAM_BYTES: Final = 2**20
"""Memory of an answer in progress besides its unread bytes: two batches, and what they are encoded to."""

SPARE_CONNECTIONS: Final = 256
"""Connections beyond the limit that get an answer: health checks theirs, all other requests 503."""

_SPARE_FILES: Final = SPARE_CONNECTIONS + 128
"""File descriptors for everything else: the model server, logs, uploads on disk."""


@dataclass(frozen=True)
class ConnectionLimits:
    """What the gateway accepts from its clients.

    Attributes:
        connections: open at a time.
        header_timeout_s: for a request's header, from the connection or its first byte on.
        send_timeout_s: for a client to read MIN_READ_BYTES.
        unread_bytes: of all answers that clients have not read yet.
    """

    connections: int = 2048
    header_timeout_s: float = 10.0
    send_timeout_s: float = 30.0
    unread_bytes: int = 128 * 2**20


class Connection(Protocol):
    """A connection, as ``check_connections`` uses it."""

    unread_since: float

    def check(self, now: float) -> int:
        """Ends the connection if its client is too slow; returns the bytes that the client has not read yet."""

    def disconnect(self, why: str) -> None:
        """Closes the connection immediately and drops the rest of its answer."""


def check_connections(connections: Iterable[Connection], now: float, limits: ConnectionLimits) -> None:
    """Ends the connections of slow clients; above the memory limit also those that wait the longest.

    Call it several times a second. ``now`` is the event loop's time.
    """
    unread = {one: size + STREAM_BYTES for one in tuple(connections) if (size := one.check(now))}
    total = sum(unread.values())
    for one in sorted(unread, key=lambda one: one.unread_since):
        if total <= limits.unread_bytes:
            break
        total -= unread[one]
        one.disconnect("unread answers")


def allow_connections(wanted: int) -> int:
    """Raises the limit of open files for ``wanted`` connections. Returns how many the system allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + _SPARE_FILES
    if soft < needed:
        soft = min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return max(1, min(wanted, soft - _SPARE_FILES))
