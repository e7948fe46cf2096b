"""The model card, ``model.json`` in a version directory: how a model was made, how good it is, its files' hashes."""

import json
from pathlib import Path
from typing import Any

from serving.contract import MODEL_CARD
from serving.errors import UserError
from serving.files import sha256_of, write_atomically


class CardError(UserError, ValueError):
    """A model card is missing or unreadable, or the files are not those that it names. The message names the file."""


def write_card(version_dir: Path, facts: dict[str, Any]) -> None:
    """Writes the card of a finished version directory: ``facts``, and ``files`` (path -> SHA-256 and size in bytes)."""
    files = {
        name: {"sha256": sha256_of(path), "bytes": path.stat().st_size} for name, path in _files_of(version_dir).items()
    }
    content = json.dumps({**facts, "files": files}, indent=2) + "\n"
    write_atomically(version_dir / MODEL_CARD, content, version_dir.resolve().parent)  # A version has no other file.


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


def find_card(version_dir: Path | None) -> dict[str, Any]:
    """Reads a version's card; an empty one if there is no version, or no card that can be read."""
    try:
        return read_card(version_dir) if version_dir else {}
    except CardError:
        return {}


def verify(version_dir: Path) -> None:
    """Compares a version's files with its card, which has to name exactly those that are there.

    It finds an incomplete transfer, a failing disk or an added file. It is not a signature: with write access to the
    directory, files and card can be changed together.

    Raises CardError for a missing card, and for a file that is missing, not named by the card, can't be read, or has
    another SHA-256.
    """
    card = read_card(version_dir)
    named = card.get("files")
    if not isinstance(named, dict) or not all(isinstance(facts, dict) for facts in named.values()):
        raise CardError(f"{version_dir / MODEL_CARD}: files should be an object with an object for each file")
    try:
        found = _files_of(version_dir)
        if missing := sorted(named.keys() - found.keys()):
            raise CardError(f"{version_dir / missing[0]} is missing; the model card names it")
        if extra := sorted(found.keys() - named.keys()):
            raise CardError(f"{version_dir / extra[0]} is not in the model card")
        for name, path in found.items():
            if (sha256 := sha256_of(path)) != named[name].get("sha256"):
                raise CardError(f"{path} has SHA-256 {sha256}; the model card says {named[name].get('sha256')}")
    except OSError as error:
        raise CardError(f"{error.filename}: {error.strerror}") from error


def _files_of(version_dir: Path) -> dict[str, Path]:
    """Returns what is in a version directory, less the card and the directories, by path relative to it."""
    return {
        path.relative_to(version_dir).as_posix(): path
        for path in sorted(version_dir.rglob("*"))
        if not path.is_dir() and path != version_dir / MODEL_CARD
    }
