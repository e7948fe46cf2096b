"""``digitgan generate`` and ``digitgan score`` as a user runs them."""

import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from digitgan import Client
from tests.support import commands
from tests.support.waiting import wait_until


def digitgan(*arguments: object, url: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return commands.digitgan(*map(str, arguments), "--url", url, check=False, cwd=cwd)


def test_a_digit_is_drawn_in_half_blocks(url: str, client: Client) -> None:
    done = digitgan("generate", "--seed", 7, url=url)
    assert done.returncode == 0, done.stderr
    rows = [line.ljust(28)[:28] for line in done.stdout.splitlines()[:14]]
    drawn = np.array([[(mark in "▀█", mark in "▄█") for mark in row] for row in rows])
    ink = client.generate(seeds=7).pixels[0] >= 128
    assert np.array_equal(drawn.transpose(0, 2, 1).reshape(28, 28), ink)
    assert done.stdout.splitlines()[14].strip() == "seed 7"


def test_several_are_drawn_with_their_labels(url: str) -> None:
    done = digitgan("generate", "--count", 3, "--digit", 4, "--curated", url=url)
    assert done.stdout.count("4, ") == 3
    seed = 2**53 - 1
    done = digitgan("generate", "--seed", seed, "--seed", seed - 1, "--labels", url=url)
    assert re.findall(r"\d{16}", done.stdout) == [str(seed), str(seed - 1)]


def test_files(url: str, client: Client, tmp_path: Path) -> None:
    for name in ("sheet.png", "digits.zip", "digits.npy"):
        done = digitgan("generate", "--seed", "0-3", "--seed", 9, "--out", name, url=url, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert done.stdout == f"{name}, by version 3 of the generator\n"
    assert np.array_equal(np.load(tmp_path / "digits.npy"), client.generate(seeds=[0, 1, 2, 3, 9]).pixels)
    assert len(list(tmp_path.iterdir())) == 3, "nothing temporary is left"


def test_scores_are_a_table_with_verdicts(url: str, tmp_path: Path) -> None:
    Image.new("L", (28, 28)).save(tmp_path / "black.png")
    Image.new("RGB", (80, 50), "white").save(tmp_path / "white.jpg")
    (tmp_path / "notes.txt").write_text("no image")
    done = digitgan("score", ".", url=url, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = {line.split("│")[1].strip(): line for line in done.stdout.splitlines() if "│" in line}
    assert set(rows) == {"black.png", "white.jpg"}
    assert "as it is" in rows["black.png"]
    assert "yes" in rows["white.jpg"]
    assert "2 without ink, by version 4 of the discriminator" in done.stdout
    refused = digitgan("score", "black.png", "notes.txt", url=url, cwd=tmp_path)
    assert refused.returncode == 2
    assert refused.stderr.startswith("digitgan: not scored: notes.txt: not an image")
    assert "black.png" in refused.stdout, "the others are scored"


def test_a_folder_of_photographs_that_are_too_many_for_one_request_is_scored(url: str, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 60, (2000, 3000, 3), np.uint8) + 180
    photograph = Image.fromarray(noise.astype(np.uint8))
    photograph.paste("black", (1400, 500, 1550, 1500))
    for index in range(3):
        photograph.save(tmp_path / f"{index}.jpg", quality=92)
    assert 8 * 2**20 / 3 < (tmp_path / "0.jpg").stat().st_size < 8 * 2**20
    done = digitgan("score", ".", url=url, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if ".jpg" in line]
    assert len(lines) == 3
    assert all("│ 1 (" in line for line in lines), lines


def test_ctrl_c_during_a_download_is_a_line_and_leaves_nothing(url: str, tmp_path: Path) -> None:
    asked = ("--count", "20000", "--scale", "16", "--out", "digits.zip", "--url", url)
    command = [sys.executable, "-m", "digitgan", "generate", *asked]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path) as process:
        wait_until(lambda: any(path.stat().st_size for path in tmp_path.iterdir()))
        process.send_signal(signal.SIGINT)
        printed, errors = process.communicate(timeout=commands.LIMIT_S)
    assert (process.returncode, printed, errors) == (130, "", "\nStopped.\n")
    assert list(tmp_path.iterdir()) == []
