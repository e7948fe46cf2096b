"""The model card, ``model.json`` in a version directory: how a model was made, how good it is, its files' hashes."""

import json
from pathlib import Path
from typing import Any

from serving.contract import MODEL_CARD
from serving.files import sha256_of, write_atomically


class CardError(ValueError):
    """A model card is missing, unreadable, or belies the files beside it. The message names the file."""


def write_card(version_dir: Path, facts: dict[str, Any]) -> None:
    """Writes the card of a finished version directory.

    Args:
        version_dir: holds every other file of the version already.
        facts: what the card says; ``files`` (path -> SHA-256 and size in bytes) is added.
    """
    files = {
        path.relative_to(version_dir).as_posix(): {"sha256": sha256_of(path), "bytes": path.stat().st_size}
        for path in sorted(version_dir.rglob("*"))
        if path.is_file() and path.name != MODEL_CARD
    }
    write_atomically(version_dir / MODEL_CARD, json.dumps({**facts, "files": files}, indent=2) + "\n")


def read_card(version_dir: Path) -> dict[str, Any]:
    """Reads a version's card. Raises CardError if there is none or it is no JSON object."""
    path = version_dir / MODEL_CARD
    try:
        card = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise CardError(f"{path}: {error}") from error
    if not isinstance(card, dict):
        raise CardError(f"{path}: not a JSON object")
    return card


def verify(version_dir: Path) -> None:
    """Compares a version's files with its card.

    Raises:
        CardError: a file that the card names is missing or has another SHA-256.
    """
    for name, facts in read_card(version_dir).get("files", {}).items():
        path = version_dir / name
        if not path.is_file():
            raise CardError(f"{path} is missing; the model card names it")
        if (found := sha256_of(path)) != facts["sha256"]:
            raise CardError(f"{path} has SHA-256 {found}; the model card says {facts['sha256']}")
