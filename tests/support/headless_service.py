"""A headless Service on this machine: a DNS server for one name. A test can change the addresses of the name.

A gateway uses it with ``DIGITGAN_MODEL_SERVER=dns://127.0.0.1:PORT/model-server:8500``. gRPC's client then does what it
does in a cluster: it resolves the name again when a connection ends.
"""

import socket
import struct
import threading
from typing import Final, Self

TTL_S: Final = 5
"""CoreDNS's for Kubernetes' names, by default."""

_ADDRESS: Final = 1
_HEADER: Final = struct.Struct(">HHHHHH")
_ANSWER: Final = 0x8180  # flags: an answer, recursion wanted and had, no error


class HeadlessService:
    """Answers every question for an IPv4 address with ``addresses``, over UDP (RFC 1035), and counts the
    ``questions``. A context manager.
    """

    def __init__(self) -> None:
        self.addresses: list[str] = []
        self.questions = 0
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def target(self, port: int) -> str:
        """The address for a gRPC client: the port is the model servers'."""
        return f"dns://127.0.0.1:{self._socket.getsockname()[1]}/model-server:{port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def _serve(self) -> None:
        while True:
            try:
                asked, client = self._socket.recvfrom(512)
                self.questions += 1
                self._socket.sendto(self._answer(asked), client)
            except OSError:
                return

    def _answer(self, asked: bytes) -> bytes:
        number, *_ = _HEADER.unpack_from(asked)
        end = asked.index(0, _HEADER.size) + 5  # the name, and its type and class
        question = asked[_HEADER.size : end]
        found = list(self.addresses) if struct.unpack(">HH", question[-4:]) == (_ADDRESS, 1) else []
        records = b"".join(
            struct.pack(">HHHIH", 0xC00C, _ADDRESS, 1, TTL_S, 4) + socket.inet_aton(address) for address in found
        )
        return _HEADER.pack(number, _ANSWER, 1, len(found), 0, 0) + question + records
