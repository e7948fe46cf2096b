"""A dataset from its first digit to its manifest.

Everything is made in ``OUT.partial``: ``plan.json`` has the options and the models' versions, ``digits.records`` the
records (``serving.dataset.record``) of the digits so far, in the order of the seeds. So the command can continue after
a stop at any moment. When all files are written, one rename moves them to ``OUT``.
"""

import json
import os
import shutil
from contextlib import closing
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from digitgan.client import Client, LabelledDigits
from digitgan.dataset import Format
from digitgan.dataset.formats import WRITERS, write_labels
from serving.contract import CLASSES
from serving.dataset import CONFIDENCE_FLOOR, Balance, Records, quotas, record
from serving.errors import UserError
from serving.files import locked, sha256_of, write_atomically
from training.bar import announce, task_bar

SEEDS_APART: Final = 2**32  # between the first seeds of datasets, of which there is room for 2^21
_MANIFEST: Final = "dataset.json"
_PLAN: Final = "plan.json"
_RECORDS: Final = "digits.records"
_PER_REQUEST: Final = 8192


@dataclass(frozen=True)
class Plan:
    """The options of a dataset with ``train`` and ``test`` digits."""

    train: int
    test: int
    format: Format = "idx"
    balance: Balance = "uniform"
    confidence_floor: float = CONFIDENCE_FLOOR
    logit_floor: float | None = None
    seed: int = 0  # which dataset: it looks at the generator's seeds from seed · 2^32 on
    generator: int | None = None  # the generator's version; None: the newest when the dataset begins

    @property
    def count(self) -> int:
        return self.train + self.test

    @property
    def first_seed(self) -> int:
        return self.seed * SEEDS_APART

    @property
    def quotas(self) -> list[int] | None:
        """How many of each digit both parts have together; None if that is left to the generator."""
        train, test = quotas(self.train, self.balance), quotas(self.test, self.balance)
        return None if train is None or test is None else [a + b for a, b in zip(train, test, strict=True)]

    def parts(self, labels: NDArray[np.uint8]) -> dict[str, NDArray[np.int64]]:
        """Returns the places of the digits in the parts "train" and "test", in their order; without an empty part.

        ``labels``, uint8 [count], are in the order of the seeds. The shuffle depends on ``seed`` alone. Without it,
        the digits that the generator makes least often would come last.
        """
        # NumPy guarantees the stream of a bit generator, not that of a distribution (NEP 19).
        order = np.argsort(np.random.Philox(key=self.seed).random_raw(len(labels)), kind="stable")
        test_quotas = quotas(self.test, self.balance)
        in_test = np.zeros(len(labels), np.bool_)
        if test_quotas is None:
            in_test[: self.test] = True
        else:
            for digit in range(CLASSES):
                in_test[np.flatnonzero(labels[order] == digit)[: test_quotas[digit]]] = True
        parts = {"train": order[~in_test], "test": order[in_test]}
        return {name: places for name, places in parts.items() if len(places)}


def partial_folder(out: Path) -> Path:
    """Returns where a dataset is until it is complete."""
    return out.with_name(f"{out.name}.partial")


def is_finished(out: Path, plan: Plan) -> bool:
    """Whether ``out`` holds this very dataset. Raises UserError if it holds anything else."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        if out.is_symlink() or out.is_mount() or not out.name:  # A rename cannot replace them.
            raise UserError(f"{out} is a link, a mount point or the current folder: name a folder in it")
        return False
    try:
        if json.loads((out / _MANIFEST).read_text("utf-8"))["options"] == asdict(plan):
            return True
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise UserError(f"{out} holds something else already, or a dataset with other options; name another folder")


def make(out: Path, plan: Plan, client: Client) -> None:
    """Makes the dataset, or continues it.

    Raises UserError if the partial folder belongs to another dataset, or to a running command, or if the gateway has
    other models by now; DigitganError if the gateway doesn't answer, or refuses.
    """
    work = partial_folder(out)
    with locked(work / ".lock", f"another command is making {work} right now"):
        versions = _collect(work, plan, client)
        files = work / "files"
        shutil.rmtree(files, ignore_errors=True)
        files.mkdir()
        _write(files, plan, versions, np.fromfile(work / _RECORDS, record()))
        files.replace(out)
        shutil.rmtree(work)


def _begun_with(work: Path, plan: Plan) -> dict[str, int]:
    """Returns the models' versions of the digits so far; none before the first digit."""
    try:
        state = json.loads((work / _PLAN).read_text("utf-8"))
    except FileNotFoundError:
        return {}
    options = asdict(plan)
    if others := [f"{name} {value}" for name, value in state["options"].items() if value != options.get(name)]:
        raise UserError(
            f"{work} was begun with other options ({', '.join(others)}): use those, or delete it to start again"
        )
    return dict(state["versions"])


def _collect(work: Path, plan: Plan, client: Client) -> dict[str, int]:
    """Requests the missing digits, and appends them to the file of records. Returns the models' versions."""
    versions = _begun_with(work, plan)
    path = work / _RECORDS
    path.touch()
    os.truncate(path, path.stat().st_size // record().itemsize * record().itemsize)  # A stop may leave half a record.
    records = np.fromfile(path, record())
    counts = np.bincount(records["digit"], minlength=CLASSES)
    next_seed = int(records["seed"][-1]) + 1 if len(records) else plan.first_seed
    announce(f"Collecting digits in {work}; if stopped, the same command continues")
    with task_bar("making digits", plan.count, len(records)) as advance:
        while (missing := plan.count - int(counts.sum())) > 0:
            parts = client.dataset(
                min(_PER_REQUEST, missing),
                balance="natural" if plan.quotas is None else None,
                quotas=None if plan.quotas is None else (np.array(plan.quotas) - counts).tolist(),
                confidence_floor=plan.confidence_floor,
                logit_floor=plan.logit_floor,
                first_seed=next_seed,
                version=versions.get("generator", plan.generator),
            )
            with closing(parts):
                for part in parts:
                    if not versions:
                        versions = part.versions
                        _write_json(work / _PLAN, {"options": asdict(plan), "versions": versions})
                    if part.versions != versions:
                        raise UserError(
                            f"the gateway has other models ({part.versions}) than this dataset began with "
                            f"({versions}). Serve those again, or delete {work} to start again"
                        )
                    append(path, part)
                    counts += np.bincount(part.labels, minlength=CLASSES)
                    next_seed = int(part.seeds[-1]) + 1
                    advance(len(part), "")
    return versions


def append(path: Path, part: LabelledDigits) -> None:
    """Appends digits to a file of records."""
    records = np.empty(len(part), record())
    records["seed"], records["digit"], records["pixels"] = part.seeds, part.labels, part.pixels
    records["confidence"], records["logit"] = part.confidences, part.logits
    with path.open("ab") as file:
        file.write(records.tobytes())


def _write(files: Path, plan: Plan, versions: dict[str, int], records: Records) -> None:
    announce("Writing the files")
    parts = {name: records[places] for name, places in plan.parts(records["digit"]).items()}
    WRITERS[plan.format](files, parts)
    write_labels(files, parts)
    paths = sorted(path for path in files.rglob("*") if path.is_file())
    sums = (f"{sha256_of(path)}  {path.relative_to(files).as_posix()}\n" for path in paths)
    (files / "SHA256SUMS").write_text("".join(sums), "utf-8")
    manifest = {
        "digitgan": metadata.version("digitgan"),
        "options": asdict(plan),
        "models": versions,
        "seeds": {"first": int(records["seed"][0]), "last": int(records["seed"][-1])},
        "digits": {name: np.bincount(part["digit"], minlength=CLASSES).tolist() for name, part in parts.items()},
    }
    _write_json(files / _MANIFEST, manifest)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    write_atomically(path, json.dumps(content, indent=2) + "\n")
