"""quiet_tensorflow_import, in processes of its own: it handles their standard error."""

import os
import subprocess
import sys


def run(block: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    program = (
        "import os, sys\n"
        "from serving.quiet import quiet_tensorflow_import\n"
        f"with quiet_tensorflow_import():\n    os.write(2, b'news\\n'); {block}\n"
        "print(os.environ['TF_CPP_MIN_LOG_LEVEL'])\n"
        "os.write(2, b'after\\n')\n"
    )
    inherited = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, env=inherited | environment
    )


def test_what_is_written_meanwhile_is_not_shown() -> None:
    result = run("pass")
    assert (result.stdout, result.stderr) == ("3\n", "after\n")


def test_what_is_written_is_shown_when_it_fails() -> None:
    result = run("import nothing_of_this_name")
    assert result.stderr.startswith("news\n")
    assert "nothing_of_this_name" in result.stderr


def test_a_log_level_that_is_set_is_left_alone() -> None:
    result = run("pass", TF_CPP_MIN_LOG_LEVEL="0")
    assert (result.stdout, result.stderr) == ("0\n", "news\nafter\n")
