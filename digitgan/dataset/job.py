"""A dataset from its first digit to its manifest.

Everything is made in ``OUT.partial``: ``plan.json`` has the options and versions, ``digits.records`` the digits so far.
When all files are written, one rename moves them to ``OUT``, so a dataset is complete or not there.
"""

import fcntl
import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import numpy as np

from digitgan.client import Client
from digitgan.dataset.collection import Collection
from digitgan.dataset.formats import WRITERS, Part, write_labels
from digitgan.dataset.plan import Plan
from serving.contract import CLASSES, GENERATOR
from serving.dataset import Records, record
from serving.errors import UserError
from serving.files import sha256_of, write_atomically
from training.bar import TaskBar

MANIFEST: Final = "dataset.json"
SUMS: Final = "SHA256SUMS"
_PLAN: Final = "plan.json"
_RECORDS: Final = "digits.records"
_FILES: Final = "files"


def partial_folder(out: Path) -> Path:
    """Where a dataset is while it isn't whole."""
    return out.with_name(f"{out.name}.partial")


def finished(out: Path, plan: Plan) -> dict[str, Any] | None:
    """Returns the manifest of ``out`` if it holds this very dataset, None if it is free.

    Raises UserError if it holds anything else.
    """
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return None
    try:
        manifest: dict[str, Any] = json.loads((out / MANIFEST).read_text("utf-8"))
        if manifest["options"] == asdict(plan):
            return manifest
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"{out} holds something else already; name another folder") from None
    raise UserError(f"{out} holds a dataset with other options already; name another folder")


def kept(out: Path) -> int:
    """Returns how many digits of an unfinished dataset are there."""
    path = partial_folder(out) / _RECORDS
    return path.stat().st_size // record().itemsize if path.exists() else 0


def make(out: Path, plan: Plan, client: Client) -> dict[str, Any]:
    """Makes the dataset, or goes on with it, and returns its manifest.

    Raises:
        UserError: the partial folder belongs to another dataset, or to a command that runs, or the gateway has other
            models by now.
        digitgan.client.DigitganError: the gateway doesn't answer, or refuses.
    """
    work = partial_folder(out)
    work.mkdir(parents=True, exist_ok=True)
    with _locked(work):
        state = _resumed(work, plan)
        collection = Collection(work / _RECORDS, plan)
        version = state["versions"][GENERATOR] if state["versions"] else plan.generator
        with TaskBar("making digits", plan.count, collection.count) as bar:
            for part in collection.missing(client, version):
                if state["versions"] is None:
                    state.update(versions=part.versions, card=_card_hash(client, part.versions[GENERATOR]))
                    _write_json(work / _PLAN, state)
                _check_same(state["versions"], part.versions)
                collection.add(part)
                bar.advance(len(part))
        files = work / _FILES
        shutil.rmtree(files, ignore_errors=True)
        files.mkdir()
        manifest = _write(files, plan, collection.records(), state)
        out.parent.mkdir(parents=True, exist_ok=True)
        files.replace(out)
        shutil.rmtree(work)
    return manifest


@contextmanager
def _locked(work: Path) -> Iterator[None]:
    """Keeps a second command away from the folder as long as the block, or the process, lasts."""
    with (work / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UserError(f"another command is making {work} right now") from error
        yield


def _resumed(work: Path, plan: Plan) -> dict[str, Any]:
    """Returns what is known of the dataset under way; begins one where there is none."""
    try:
        state: dict[str, Any] = json.loads((work / _PLAN).read_text("utf-8"))
    except FileNotFoundError:
        state = {"options": asdict(plan), "versions": None, "card": None}
        _write_json(work / _PLAN, state)
    if state.get("options") != asdict(plan):
        others = {name: value for name, value in state["options"].items() if value != asdict(plan).get(name)}
        said = ", ".join(f"{name} {value}" for name, value in others.items())
        raise UserError(f"{work} was begun with other options ({said}): use those, or delete it to start again")
    return state


def _check_same(ours: dict[str, int], theirs: dict[str, int]) -> None:
    changed = [f"{model} {ours[model]} (now {theirs[model]})" for model in ours if ours[model] != theirs[model]]
    if changed:
        raise UserError(
            f"the gateway has other models than those that this dataset began with: {', '.join(changed)}. Serve those "
            "again, or delete the partial folder to start again"
        )


def _write(files: Path, plan: Plan, records: Records, state: dict[str, Any]) -> dict[str, Any]:
    """Writes the dataset's files, and returns its manifest."""
    parts = tuple(
        Part(name, records, places, plan.scale)
        for name, places in zip(("train", "test"), plan.parts(records["digit"]), strict=True)
        if len(places)
    )
    with TaskBar("writing digits", plan.count) as bar:
        for part in parts:
            for written in WRITERS[plan.format](files, part):
                bar.advance(written)
    write_labels(files, parts)
    paths = {path.relative_to(files).as_posix(): path for path in sorted(files.rglob("*")) if path.is_file()}
    hashes = {name: sha256_of(path) for name, path in paths.items()}
    (files / SUMS).write_text("".join(f"{digest}  {name}\n" for name, digest in hashes.items()), "utf-8")
    if plan.format == "png":  # its many files are in SHA256SUMS alone
        hashes, paths = {SUMS: sha256_of(files / SUMS)}, {SUMS: files / SUMS}
    manifest = {
        "digitgan": metadata.version("digitgan"),
        "options": asdict(plan),
        "models": state["versions"],
        "generator_card_sha256": state["card"],
        "seeds": {"first": int(records["seed"][0]), "last": int(records["seed"][-1])},
        "digits": {part.name: np.bincount(part.labels, minlength=CLASSES).tolist() for part in parts},
        "least_confidence": float(records["confidence"].min()),
        "least_logit": float(records["logit"].min()),
        "files": {name: {"sha256": hashes[name], "bytes": path.stat().st_size} for name, path in paths.items()},
    }
    _write_json(files / MANIFEST, manifest)
    return manifest


def _card_hash(client: Client, generator: int) -> str | None:
    """The SHA-256 of the generator's model card, as JSON with sorted keys and no spaces; None if it isn't shown."""
    for model in client.models():
        for one in model.versions:
            if model.name == GENERATOR and one.version == generator and one.card is not None:
                canonical = json.dumps(one.card, sort_keys=True, separators=(",", ":"))
                return hashlib.sha256(canonical.encode()).hexdigest()
    return None


def _write_json(path: Path, content: dict[str, Any]) -> None:
    write_atomically(path, json.dumps(content, indent=2) + "\n")
