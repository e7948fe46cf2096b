"""Training in bfloat16, compiled by XLA."""

from pathlib import Path

from serving.contract import GENERATOR
from serving.model_card import read_card
from tests.support.commands import digitgan


def test_bfloat16_and_xla_train_too(digits_npz: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    digitgan(
        "train", "--data", digits_npz, "--steps", "3", "--run", run, "--preset", "deck", "--batch-size", "8",
        "--mixed-precision", "--xla", "--index-seeds", "0", "--detector-steps", "2",
    )  # fmt: skip
    card = read_card(run / "models" / GENERATOR / "1")
    assert card["training"]["mixed_precision"] is True
    assert card["training"]["recipe"]["ema_decay"] == 0
