"""Load on an HTTP server, by bare sockets in one thread: so many clients, or so many requests a second.

A generator shares the machine with what it measures, so it does little: requests are bytes made beforehand, and of an
answer it looks at the status and the length. Time is counted from when a request was due, not from when it was sent.
"""

import random
import resource
import select
import socket
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import orjson

_READ_BYTES: Final = 2**18
_TICK_S: Final = 0.001
"""Open load is sent and read so often: waking for every answer would cost both sides more than the answer does."""

_LENGTH: Final = b"content-length: "


@dataclass(frozen=True)
class Request:
    """One request as it goes out. ``images``: how many digits it asks for."""

    images: int
    content: bytes


def generate(images: int, first_seed: int) -> Request:
    """Returns a request for the digits of so many seeds, as JSON."""
    body = orjson.dumps({"seeds": list(range(first_seed, first_seed + images))})
    fields = f"Host: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    return Request(images, f"POST /generate HTTP/1.1\r\n{fields}\r\n\r\n".encode() + body)


@dataclass
class Outcome:
    """What became of some requests: ``seconds`` of each, by images and status; how many were lost, and why."""

    took_s: float = 0.0
    seconds: dict[tuple[int, int], list[float]] = field(default_factory=dict)
    lost: list[str] = field(default_factory=list)

    def of(self, status: int, images: int | None = None) -> list[float]:
        """Returns the seconds of the requests with this answer, of all or of those for so many images; ascending."""
        found = [times for (size, code), times in self.seconds.items() if code == status and images in (None, size)]
        return sorted(one for times in found for one in times)

    @property
    def images_per_s(self) -> float:
        """Images in answers with 200."""
        return sum(size * len(times) for (size, code), times in self.seconds.items() if code == 200) / self.took_s

    @property
    def requests(self) -> int:
        return sum(map(len, self.seconds.values())) + len(self.lost)


class _Connection:
    """One connection and the request on it. ``due``: when that was to be sent; 0 without one."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.due = 0.0
        self.request: Request | None = None
        self.head = b""
        self.have = self.need = 0

    def send(self, request: Request, due: float) -> None:
        self.request, self.due, self.head, self.have, self.need = request, due, b"", 0, 0
        self.socket.sendall(request.content)

    def receive(self) -> int:
        """Takes what is there; returns the status once the answer is whole, and 0 before. Raises OSError."""
        piece = self.socket.recv(_READ_BYTES)
        if not piece:
            raise OSError("the connection was closed before the answer was whole")
        self.have += len(piece)
        if not self.need:
            self.head += piece
            end = self.head.find(b"\r\n\r\n")
            if end < 0:
                return 0
            at = self.head.find(_LENGTH) + len(_LENGTH)
            self.need = end + 4 + int(self.head[at : self.head.find(b"\r\n", at)])
        return int(self.head[9:12]) if self.have >= self.need else 0


class Load:
    """Sends ``requests``, chosen at random, to a port of this machine."""

    def __init__(self, port: int, requests: Sequence[Request], seed: int = 0) -> None:
        self._port = port
        self._requests = requests
        self._random = random.Random(seed)
        self._poll = select.epoll()
        self._by_fd: dict[int, _Connection] = {}
        self._idle: deque[_Connection] = deque()
        self._outcome = Outcome()
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

    def closed(self, clients: int, seconds: float) -> Outcome:
        """Has so many clients ask again and again, each as soon as it has its answer."""
        start = time.perf_counter()
        for _ in range(clients):
            self._send(time.perf_counter())
        while (now := time.perf_counter()) < start + seconds:
            self._receive(start + seconds - now)
            while self._idle:
                self._send(time.perf_counter())
        return self._end(start)

    def open(self, rate: float, seconds: float, connections: int = 512) -> Outcome:
        """Sends ``rate`` requests a second at random moments (a Poisson process), whatever comes back.

        There are ``connections`` before it begins, and more are made whenever all of them wait for an answer.
        """
        self._idle += [self._connect() for _ in range(connections)]
        time.sleep(1.0)
        start = due = time.perf_counter()
        while due < start + seconds:
            while due <= time.perf_counter() and due < start + seconds:
                self._send(due)
                due += self._random.expovariate(rate)
            self._receive(0.0)
            time.sleep(_TICK_S)
        return self._end(start)

    def _send(self, due: float) -> None:
        connection = self._idle.popleft() if self._idle else self._connect()
        try:
            connection.send(self._random.choice(self._requests), due)
        except OSError as error:
            self._lose(connection, error)

    def _connect(self) -> _Connection:
        connection = _Connection(self._port)
        self._by_fd[connection.socket.fileno()] = connection
        self._poll.register(connection.socket, select.EPOLLIN)
        return connection

    def _receive(self, timeout_s: float) -> None:
        for fd, _ in self._poll.poll(timeout_s):
            connection = self._by_fd[fd]
            try:
                status = connection.receive()
            except OSError as error:
                self._lose(connection, error)
                continue
            if status and connection.request:
                key = connection.request.images, status
                self._outcome.seconds.setdefault(key, []).append(time.perf_counter() - connection.due)
                connection.request = None
                self._idle.append(connection)

    def _lose(self, connection: _Connection, error: OSError) -> None:
        """Forgets a connection that broke. Idle ones may be closed by the server at any time: that loses nothing."""
        if connection.request:
            self._outcome.lost.append(str(error))
        if connection in self._idle:
            self._idle.remove(connection)
        del self._by_fd[connection.socket.fileno()]
        self._poll.unregister(connection.socket)
        connection.socket.close()

    def _end(self, start: float, patience_s: float = 30.0) -> Outcome:
        """Waits for the answers that are still on their way."""
        outcome = self._outcome
        outcome.took_s = time.perf_counter() - start
        end = time.perf_counter() + patience_s
        while any(one.request for one in self._by_fd.values()) and time.perf_counter() < end:
            self._receive(0.1)
        outcome.lost += ["no answer" for one in self._by_fd.values() if one.request]
        for connection in list(self._by_fd.values()):
            connection.request = None
            connection.socket.close()
        self._poll.close()
        return outcome
