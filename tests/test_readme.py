"""The README's first minute is true: its commands do what is printed beside them."""

import contextlib
import io
import json
import re
import shlex
import zipfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from PIL import Image

from benchmarks.service import digitgan_up

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")
FIRST_MINUTE = README.split("## The first minute")[1].split("\n## ")[0]


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", FIRST_MINUTE, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    with digitgan_up() as (_, client):
        yield client


def curl(command: str, client: httpx.Client, directory: Path) -> str:
    """Does what a README's curl command does, so that the tests need no curl; returns what it would print."""
    words = iter(shlex.split(command)[1:])
    url, output, headers, body = "", None, {}, None
    for word in words:
        match word:
            case "-s":
                pass
            case "-o":
                output = directory / next(words)
            case "-H":
                name, _, value = next(words).partition(": ")
                headers[name] = value
            case "-d":
                body = next(words).encode()
            case "--data-binary":
                body = (directory / next(words).removeprefix("@")).read_bytes()
            case _:
                assert word.startswith("http://127.0.0.1:8000/"), word
                url = word.removeprefix("http://127.0.0.1:8000")
    answer = client.request("GET" if body is None else "POST", url, headers=headers, content=body)
    assert answer.status_code == 200, answer.text
    if output is None:
        return answer.text
    output.write_bytes(answer.content)
    return ""


def test_the_first_commands_give_a_digit_a_sheet_and_a_score(client: httpx.Client, tmp_path: Path) -> None:
    make_run, *commands = blocks("console")
    assert make_run == "$ make run\n"
    printed = ""
    for line in "".join(commands).splitlines():
        if line.startswith("$ "):
            printed = curl(line.removeprefix("$ "), client, tmp_path)
        else:
            said, expected = json.loads(printed), json.loads(line)
            (score,), (expected_score,) = said.pop("scores"), expected.pop("scores")
            assert said == expected
            assert score["verdict"] == expected_score["verdict"]
            assert score["probability"] == pytest.approx(expected_score["probability"], abs=1e-3)
    with Image.open(tmp_path / "7.png") as digit:
        assert digit.size == (28, 28)
    for sheet in ("sheet.png", "sevens.png"):
        with Image.open(tmp_path / sheet) as digits:
            assert min(digits.size) >= 10 * 28
    with zipfile.ZipFile(tmp_path / "digits.zip") as archive:
        assert len(archive.namelist()) == 1001
        assert "labels.csv" in archive.namelist()


def test_the_python_example_prints_what_it_says(client: httpx.Client) -> None:
    (code,), (expected,) = blocks("python"), blocks("output")
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(code.replace("http://127.0.0.1:8000", str(client.base_url).rstrip("/")), {})
    assert printed.getvalue() == expected


def test_the_make_targets_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"`make ([a-z-]+)", README))
    assert named
    assert named <= targets
