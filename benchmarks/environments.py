"""Virtual environments with pinned versions, for what is compared with and isn't part of the project.

All of them go into CACHE, which git ignores, and are made once.
"""

import hashlib
import subprocess
import sys
from pathlib import Path
from typing import Final

from rich.console import Console

CACHE: Final = Path(__file__).parent.parent / ".bench"


def environment(name: str, requirements: str, console: Console) -> Path:
    """Returns the Python of an environment, which is made where it isn't there yet or asks for other versions.

    Args:
        name: of the environment's directory in CACHE.
        requirements: what pip installs, as in a requirements file.
        console: told when it has to be made.
    """
    directory = CACHE / name
    done = directory / ".done"
    wanted = hashlib.sha256(requirements.encode()).hexdigest()
    if not done.is_file() or done.read_text() != wanted:
        console.print(f"Making the environment of {name} in {directory}")
        subprocess.run([sys.executable, "-m", "venv", "--clear", directory], check=True)
        listed = directory / "requirements.txt"
        listed.write_text(requirements)
        pip: list[str | Path] = [directory / "bin/python", "-m", "pip", "install"]
        subprocess.run([*pip, "--quiet", "--disable-pip-version-check", "--requirement", listed], check=True)
        done.write_text(wanted)
    return directory / "bin/python"
