"""The Dockerfile, by hadolint: no container is needed for that."""

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
