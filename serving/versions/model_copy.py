"""Copies of model versions from one base directory into another, such as from an image into a shared volume.

    add_versions(Path("/srv/models"), Path("/models"), PurePosixPath("/models"), print)

A version is copied beside its place and renamed, so a model server sees the whole version or none.
"""

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from serving.errors import UserError
from serving.storage import find_versions
from serving.tf_serving.model_config import from_directory
from serving.tf_serving.server_config import MODELS_CONFIG, models_config, write_models_config
from serving.versions.model_card import read_card, verify
from serving.versions.roll_out import STABLE


def add_versions(
    source: Path, target: Path, mount_point: PurePosixPath | Path, progress: Callable[[str], None]
) -> None:
    """Copies the versions that the base directory ``target`` lacks, and writes ``models.config`` if it has none.

    The new ``models.config`` gives the label ``stable`` to the newest version of each model in ``target``, which the
    model servers see as ``mount_point``. ``progress`` gets a sentence for each step.

    Raises ConfigError if ``source`` holds no version, CardError if the files of a version are not those of its model
    card, UserError if ``target`` has another version of the same number or cannot be written.
    """
    models = [model.name for model in from_directory(source)]
    others = []
    try:
        for model in models:
            for version, stored in sorted(find_versions(source / model).items()):
                if _add(stored.path, target / model / str(version)):
                    progress(f"{model} version {version}: copied")
                elif source.samefile(target) or read_card(target / model / str(version)) == read_card(stored.path):
                    progress(f"{model} version {version}: is there")
                else:
                    others.append(f"{model} {version}")
        if not (target / MODELS_CONFIG).exists():
            stable = {model: {STABLE: max(find_versions(target / model))} for model in models}
            write_models_config(target, models_config(models, mount_point, stable))
            progress(f"{MODELS_CONFIG}: written, with the newest versions as {STABLE}")
    except OSError as error:
        raise UserError(
            f"{error.filename}: {error.strerror}. This process has to be able to write to {target}"
        ) from error
    if others:
        raise UserError(
            f"{target} holds other models under these versions, which stay: {', '.join(others)}. Publish the new ones "
            "under numbers that are free"
        )


def _add(version: Path, place: Path) -> bool:
    """Copies a version to its place, by a rename. Returns False if a version is there already."""
    if place.exists():
        return False
    place.parent.mkdir(parents=True, exist_ok=True)
    # A name that is no number is invisible to model servers.
    with tempfile.TemporaryDirectory(prefix=f".{place.name}.", dir=place.parent) as staging:
        copied = Path(staging, place.name)
        copied.mkdir()
        # Names and contents only: a volume may refuse modes, times and extended attributes.
        for path in sorted(version.rglob("*")):
            if path.is_dir():
                (copied / path.relative_to(version)).mkdir()
            else:
                shutil.copyfile(path, copied / path.relative_to(version))
        verify(copied)
        try:
            copied.rename(place)
        except OSError:
            if not place.exists():
                raise
            return False
    return True
