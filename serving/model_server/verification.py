"""The check that a version's files are those of its model card, before any of them is loaded."""

import logging
import time
from pathlib import Path

from grpc import StatusCode

from serving.contract import MODEL_CARD
from serving.model_card import CardError, verify
from serving.model_server.errors import ServingError

_log = logging.getLogger(__name__)


def verify_version(path: Path, *, require_card: bool) -> None:
    """Compares the files in a version directory with its model card (SHA-256).

    A version without a card passes, as TensorFlow Serving knows no cards, unless ``require_card``.

    Raises ServingError: DATA_LOSS for files that aren't the card's, FAILED_PRECONDITION without a required card.
    """
    if not (path / MODEL_CARD).exists():
        if require_card:
            raise ServingError(StatusCode.FAILED_PRECONDITION, f"no {MODEL_CARD} in {path}, and cards are required")
        _log.warning("%s: no %s, so its files are not verified", path, MODEL_CARD)
        return
    started = time.monotonic()
    try:
        verified = verify(path)
    except CardError as error:
        raise ServingError(StatusCode.DATA_LOSS, str(error)) from error
    milliseconds = 1000 * (time.monotonic() - started)
    size = verified.size_bytes / 1e6
    _log.info("%s: %d files verified by SHA-256 (%.1f MB in %.0f ms)", path, verified.files, size, milliseconds)
