"""TLS between gateway and model server: certificates and keys in PEM files, read and checked before they are used."""

import ssl
from pathlib import Path

import grpc


def read_credentials(ca: Path, cert: Path | None = None, key: Path | None = None) -> grpc.ChannelCredentials:
    """Returns the credentials in the files: which authorities are trusted, and the own certificate if there is one.

    Raises ValueError, naming the file, if one can't be read, holds something else, or if the key isn't the
    certificate's.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(ca)
    except (OSError, ssl.SSLError) as error:
        raise ValueError(f"{ca}: no certificates in PEM: {error}") from error
    if cert is None or key is None:
        return grpc.ssl_channel_credentials(ca.read_bytes())
    try:
        context.load_cert_chain(cert, key)
    except (OSError, ssl.SSLError) as error:
        raise ValueError(f"{cert}, {key}: no certificate in PEM with its key: {error}") from error
    return grpc.ssl_channel_credentials(ca.read_bytes(), key.read_bytes(), cert.read_bytes())
