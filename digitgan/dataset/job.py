"""A dataset from its first digit to its manifest.

Everything is made in ``OUT.partial``: ``plan.json`` has the options and the models' versions, ``digits.records`` the
records (``serving.dataset.record``) of the digits so far, in the order of the seeds. So the command can go on after a
stop at any moment. When all files are written, one rename moves them to ``OUT``: a dataset is complete or not there.
"""

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import numpy as np

from digitgan.client import Client, LabelledDigits
from digitgan.dataset.formats import WRITERS, write_labels
from digitgan.dataset.plan import Plan
from serving.contract import CLASSES
from serving.dataset import Records, record
from serving.errors import UserError
from serving.files import sha256_of, write_atomically
from training.bar import TaskBar, announce

_MANIFEST: Final = "dataset.json"
_PLAN: Final = "plan.json"
_RECORDS: Final = "digits.records"
_PER_REQUEST: Final = 8192


def partial_folder(out: Path) -> Path:
    """Where a dataset is while it isn't whole."""
    return out.with_name(f"{out.name}.partial")


def is_finished(out: Path, plan: Plan) -> bool:
    """Whether ``out`` holds this very dataset. Raises UserError if it holds anything else."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return False
    try:
        if json.loads((out / _MANIFEST).read_text("utf-8"))["options"] == asdict(plan):
            return True
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise UserError(f"{out} holds something else already, or a dataset with other options; name another folder")


def make(out: Path, plan: Plan, client: Client) -> None:
    """Makes the dataset, or goes on with it.

    Raises:
        UserError: the partial folder belongs to another dataset, or to a command that runs, or the gateway has other
            models by now.
        digitgan.client.DigitganError: the gateway doesn't answer, or refuses.
    """
    work = partial_folder(out)
    with _locked(work):
        state = _begin(work, plan)
        _collect(work, plan, state, client)
        files = work / "files"
        shutil.rmtree(files, ignore_errors=True)
        files.mkdir()
        _write(files, plan, state, _read_records(work))
        files.replace(out)
        shutil.rmtree(work)


@contextmanager
def _locked(work: Path) -> Iterator[None]:
    """Keeps a second command away from the folder as long as the block, or the process, lasts."""
    with (work / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UserError(f"another command is making {work} right now") from error
        yield


def _begin(work: Path, plan: Plan) -> dict[str, Any]:
    """Returns the options and versions of the dataset under way; begins one where there is none."""
    options = asdict(plan)
    try:
        state: dict[str, Any] = json.loads((work / _PLAN).read_text("utf-8"))
    except FileNotFoundError:
        state = {"options": options, "versions": None}
        _write_json(work / _PLAN, state)
    if others := [f"{name} {value}" for name, value in state["options"].items() if value != options.get(name)]:
        raise UserError(
            f"{work} was begun with other options ({', '.join(others)}): use those, or delete it to start again"
        )
    return state


def _collect(work: Path, plan: Plan, state: dict[str, Any], client: Client) -> None:
    """Requests the missing digits, and appends them to the file of records."""
    path = work / _RECORDS
    path.touch()
    os.truncate(path, path.stat().st_size // record().itemsize * record().itemsize)  # A stop may leave half a record.
    records = _read_records(work)
    counts = np.bincount(records["digit"], minlength=CLASSES)
    next_seed = int(records["seed"][-1]) + 1 if len(records) else plan.first_seed
    announce(f"Collecting digits in {work}; if stopped, the same command continues")
    with TaskBar("making digits", plan.count, len(records)) as bar:
        while (missing := plan.count - int(counts.sum())) > 0:
            parts = client.dataset(
                min(_PER_REQUEST, missing),
                balance="natural" if plan.quotas is None else None,
                quotas=None if plan.quotas is None else (np.array(plan.quotas) - counts).tolist(),
                confidence_floor=plan.confidence_floor,
                logit_floor=plan.logit_floor,
                first_seed=next_seed,
                version=state["versions"]["generator"] if state["versions"] else plan.generator,
            )
            with closing(parts):
                for part in parts:
                    _keep_versions(work, state, part.versions)
                    append(path, part)
                    counts += np.bincount(part.labels, minlength=CLASSES)
                    next_seed = int(part.seeds[-1]) + 1
                    bar.advance(len(part))


def _keep_versions(work: Path, state: dict[str, Any], versions: dict[str, int]) -> None:
    """Stores the versions of the first digits. Raises UserError if later ones are by other versions."""
    if state["versions"] is None:
        state["versions"] = versions
        _write_json(work / _PLAN, state)
    elif state["versions"] != versions:
        raise UserError(
            f"the gateway has other models ({versions}) than this dataset began with ({state['versions']}). Serve "
            f"those again, or delete {work} to start again"
        )


def append(path: Path, part: LabelledDigits) -> None:
    """Appends digits to a file of records."""
    records = np.empty(len(part), record())
    records["seed"], records["digit"], records["pixels"] = part.seeds, part.labels, part.pixels
    records["confidence"], records["logit"] = part.confidences, part.logits
    with path.open("ab") as file:
        file.write(records.tobytes())


def _read_records(work: Path) -> Records:
    return np.fromfile(work / _RECORDS, record())


def _write(files: Path, plan: Plan, state: dict[str, Any], records: Records) -> None:
    """Writes the dataset's files, its manifest among them."""
    announce("Writing the files")
    parts = {name: records[places] for name, places in plan.parts(records["digit"]).items()}
    WRITERS[plan.format](files, parts)
    write_labels(files, parts)
    paths = sorted(path for path in files.rglob("*") if path.is_file())
    sums = (f"{sha256_of(path)}  {path.relative_to(files).as_posix()}\n" for path in paths)
    (files / "SHA256SUMS").write_text("".join(sums), "utf-8")
    manifest = {
        "digitgan": metadata.version("digitgan"),
        "options": state["options"],
        "models": state["versions"],
        "seeds": {"first": int(records["seed"][0]), "last": int(records["seed"][-1])},
        "digits": {name: np.bincount(part["digit"], minlength=CLASSES).tolist() for name, part in parts.items()},
    }
    _write_json(files / _MANIFEST, manifest)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    write_atomically(path, json.dumps(content, indent=2) + "\n")
