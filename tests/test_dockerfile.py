"""The Dockerfile, by hadolint: no container is needed for that."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def test_hadolint_has_nothing_to_say() -> None:
    binary = shutil.which("hadolint", path=Path(sys.executable).parent) or shutil.which("hadolint")
    if binary is None:
        pytest.skip("NOT CHECKED: the Dockerfile. There is no hadolint for this machine on the package index")
    done = subprocess.run([binary, str(ROOT / "Dockerfile")], capture_output=True, text=True)
    assert done.stdout + done.stderr == ""
    assert done.returncode == 0


@pytest.mark.parametrize("image", ["gateway", "models", "model-server", "trainer"])
def test_an_image_names_the_commit_of_what_is_in_it(image: str) -> None:
    """podman's cache does not look at the argument REVISION: the label is new only where a copy before it is."""
    stages = dict(
        re.findall(r"^FROM \S+ AS (\S+)(.*?)(?=^FROM |\Z)", (ROOT / "Dockerfile").read_text(), re.DOTALL | re.MULTILINE)
    )
    assert stages[image].rfind("\nCOPY ") < stages[image].find("image.revision=")
