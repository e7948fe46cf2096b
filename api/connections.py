"""How many connections there are, and how long a client may leave its answer untaken.

An answer that nobody takes stays in memory, and a stream in the making with it. One costs little, and a thousand cost
gigabytes. So whoever takes nothing is cut off after a while, and the slowest at once when all that waits is too much.
"""

import resource
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, Protocol

from api.metrics import Metrics

LEAST_TAKEN_BYTES: Final = 64 * 2**10
"""What a client has to take within the timeout, or all that is left: slower ones are cut off."""

STREAM_BYTES: Final = 2**20
"""What an answer under way holds besides its unsent bytes: a batch, the next one, and what they are made into."""

SPARE_CONNECTIONS: Final = 256
"""Beyond the most there may be: they are told so, or get the health checks that they came for."""

_SPARE_FILES: Final = SPARE_CONNECTIONS + 128
"""File descriptors for all but connections: the model server, logs, uploads on disk."""


class Connection(Protocol):
    """What is looked at of a connection."""

    def unsent_bytes(self) -> int:
        """Returns how much of its answers the system has not taken yet."""

    def cut_off(self) -> None:
        """Closes it at once, and forgets what is unsent."""


@dataclass
class _Wait:
    """An answer that waits: ``left`` bytes of it at the time ``since``, the last when it had moved on."""

    left: int
    since: float


@dataclass
class SlowReaders:
    """Cuts off clients that don't take their answers.

    ``timeout_s``: for LEAST_TAKEN_BYTES. ``most_bytes``: of all that waits, STREAM_BYTES for each answer included.
    """

    timeout_s: float
    most_bytes: int
    metrics: Metrics
    _waits: dict[Connection, _Wait] = field(default_factory=dict)

    def check(self, connections: Iterable[Connection], now: float) -> None:
        """Looks at ``connections``. Call it with all of them every second or so. ``now``: in seconds."""
        unsent = {one: size for one in connections if (size := one.unsent_bytes())}
        self._waits = {one: _moved_on(self._waits.get(one), size, now) for one, size in unsent.items()}
        total = sum(unsent.values()) + STREAM_BYTES * len(unsent)
        for one in sorted(unsent, key=lambda one: self._waits[one].since):
            if total <= self.most_bytes and now - self._waits[one].since < self.timeout_s:
                break
            total -= unsent[one] + STREAM_BYTES
            self._waits.pop(one)
            self.metrics.cut_off.labels("unread answers").inc()
            one.cut_off()

    def wait(self, connection: Connection, now: float) -> None:
        """Notes that an answer has to wait, and looks at all that do where they are too many."""
        self._waits.setdefault(connection, _Wait(connection.unsent_bytes(), now))
        if len(self._waits) * STREAM_BYTES > self.most_bytes:
            self.check(self._waits, now)

    def forget(self, connection: Connection) -> None:
        """Begins anew with a connection: what it was sent has been taken, and more may follow."""
        self._waits.pop(connection, None)


def _moved_on(wait: _Wait | None, left: int, now: float) -> _Wait:
    if wait is None or wait.left - left >= LEAST_TAKEN_BYTES:
        return _Wait(left, now)
    wait.left = max(wait.left, left)  # more of the answer may have come
    return wait


def most_connections(wanted: int) -> int:
    """Returns how many of ``wanted`` connections this process may have files open for, after asking for more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + _SPARE_FILES
    if soft < needed:
        soft = min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return max(1, min(wanted, soft - _SPARE_FILES))
