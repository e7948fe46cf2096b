"""TLS between gateway and model server: certificates and keys in PEM files, read and checked before they are used."""

import ssl
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Tls:
    """What one side shows, and whom it trusts, in PEM. Without ``cert`` and ``key`` it shows nothing."""

    ca: bytes
    cert: bytes | None = None
    key: bytes | None = field(default=None, repr=False)


def read_tls(ca: Path, cert: Path | None = None, key: Path | None = None) -> Tls:
    """Reads the files. Raises ValueError, naming the file, if one can't be read, holds something else, or if the key
    isn't the certificate's.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(ca)
    except (OSError, ssl.SSLError) as error:
        raise ValueError(f"{ca}: no certificates in PEM: {error}") from error
    if cert is None or key is None:
        return Tls(ca.read_bytes())
    try:
        context.load_cert_chain(cert, key)
    except (OSError, ssl.SSLError) as error:
        raise ValueError(f"{cert}, {key}: no certificate in PEM with its key: {error}") from error
    return Tls(ca.read_bytes(), cert.read_bytes(), key.read_bytes())
