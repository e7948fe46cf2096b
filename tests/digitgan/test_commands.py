"""``digitgan generate``, ``digitgan score`` and ``digitgan key`` as a user runs them."""

import re
import signal
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from api.middleware.keys import hash_of, keys_of
from digitgan import Client
from tests.support import gateways
from tests.support.commands import digitgan, stopped_after


@pytest.fixture(autouse=True)
def working_directory(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIGITGAN_URL", url)
    monkeypatch.chdir(tmp_path)


def test_a_digit_is_drawn_in_half_blocks(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    done = digitgan("generate", "--seed", 7)
    rows = [line.ljust(28)[:28] for line in done.stdout.splitlines()[:14]]
    drawn = np.array([[(mark in "▀█", mark in "▄█") for mark in row] for row in rows])
    ink = client.generate(seeds=7).pixels[0] >= 128
    assert np.array_equal(drawn.transpose(0, 2, 1).reshape(28, 28), ink)
    assert done.stdout.splitlines()[14].strip() == "seed 7"


def test_several_are_drawn_with_their_labels() -> None:
    done = digitgan("generate", "--count", 3, "--digit", 4, "--curated")
    assert done.stdout.count("4, ") == 3
    seed = 2**53 - 1
    done = digitgan("generate", "--seed", seed, "--seed", seed - 1, "--labels")
    assert re.findall(r"\d{16}", done.stdout) == [str(seed), str(seed - 1)]


def test_files(client: Client, tmp_path: Path) -> None:
    for name in ("sheet.png", "digits.zip", "digits.npy"):
        done = digitgan("generate", "--seed", "0-3", "--seed", 9, "--out", name)
        assert done.stdout == f"{name}, by version 3 of the generator\n"
    assert np.array_equal(np.load(tmp_path / "digits.npy"), client.generate(seeds=[0, 1, 2, 3, 9]).pixels)
    assert len(list(tmp_path.iterdir())) == 3, "nothing temporary is left"


def test_scores_are_a_table_with_verdicts(tmp_path: Path) -> None:
    Image.new("L", (28, 28)).save(tmp_path / "black.png")
    Image.new("RGB", (80, 50), "white").save(tmp_path / "white.jpg")
    (tmp_path / "notes.txt").write_text("no image")
    done = digitgan("score", ".")
    rows = {line.split("│")[1].strip(): line for line in done.stdout.splitlines() if "│" in line}
    assert set(rows) == {"black.png", "white.jpg"}
    assert "as it is" in rows["black.png"]
    assert "yes" in rows["white.jpg"]
    assert "2 without ink, by version 4 of the discriminator" in done.stdout
    refused = digitgan("score", "black.png", "notes.txt", status=2)
    assert refused.stderr.startswith("digitgan: not scored: notes.txt: not an image")
    assert "black.png" in refused.stdout, "the others are scored"


def test_a_folder_of_photographs_that_are_too_many_for_one_request_is_scored(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 60, (2000, 3000, 3), np.uint8) + 180
    photograph = Image.fromarray(noise.astype(np.uint8))
    photograph.paste("black", (1400, 500, 1550, 1500))
    for index in range(3):
        photograph.save(tmp_path / f"{index}.jpg", quality=92)
    assert 8 * 2**20 / 3 < (tmp_path / "0.jpg").stat().st_size < 8 * 2**20
    done = digitgan("score", ".")
    lines = [line for line in done.stdout.splitlines() if ".jpg" in line]
    assert len(lines) == 3
    assert all("│ 1 (" in line for line in lines), lines


def test_ctrl_c_during_a_download_is_a_line_and_leaves_nothing(tmp_path: Path) -> None:
    command = ("generate", "--count", "20000", "--scale", "16", "--out", "digits.zip")
    done = stopped_after("httpx.Response.aiter_bytes", signal.SIGINT, *command)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "\nStopped.\n")
    assert list(tmp_path.iterdir()) == []


def test_a_key_is_printed_with_the_entry_that_lets_it_in(model_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client takes it as an argument or from the environment."""
    printed = digitgan("key", "carol", "--images", "600").stdout
    key, entry = (line.partition(" ")[2].strip() for line in printed.splitlines())
    assert entry.startswith("carol:")
    assert keys_of(entry) == {hash_of(key): 600}
    with gateways.gateway(model_server, api_keys=entry) as process:
        command = ("generate", "--url", process.url, "--seed", "7")
        assert "API key" in digitgan(*command, status=2).stderr
        with Client(process.url, api_key=key) as client:
            assert len(client.generate(3).pixels) == 3
        monkeypatch.setenv("DIGITGAN_API_KEY", key)
        digitgan(*command)


def test_a_service_for_a_command_alone_wants_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIGITGAN_API_KEYS", f"carol:{hash_of('secret')}")
    digitgan("generate", "--local", "--seed", "7")
