"""serving.tf_serving.model_config: the models.config of TensorFlow Serving, and directories of models."""

from pathlib import Path

import pytest

from serving.tf_serving import model_config
from serving.tf_serving.model_config import ConfigError, ModelConfig


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (None, "models.config"),
        (b"\xff\xfe", "models.config"),
        ("", "no model_config_list"),
        ("model_config_list {", "models.config"),
        ("model_config_list { config { nam: 'a' } }", "nam"),
        ('model_config_list { config { base_path: "/m" model_platform: "tensorflow" } }', "no name"),
        ('model_config_list { config { name: "m" model_platform: "tensorflow" } }', "absolute"),
        (
            'model_config_list { config { name: "m" base_path: "/m" model_platform: "tensorflow" '
            "model_version_policy { specific { versions: 0 } } } }",
            "from 1 upwards",
        ),
    ],
)
def test_a_wrong_file_is_refused_with_its_reason(tmp_path: Path, text: str | bytes | None, complaint: str) -> None:
    path = tmp_path / "models.config"
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError, match=complaint):
        model_config.read(path)


def test_a_directory_of_models_serves_each_that_has_a_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for version in ("b/1", "a/2", "a/10", "empty", "half-written/3.tmp"):
        (tmp_path / "models" / version).mkdir(parents=True)
    (tmp_path / "models" / "models.config").touch()
    monkeypatch.chdir(tmp_path)
    assert model_config.from_directory(Path("models")) == (
        ModelConfig("a", tmp_path / "models/a"),
        ModelConfig("b", tmp_path / "models/b"),
    )
    for place in (tmp_path / "models/b/1", tmp_path / "missing"):
        with pytest.raises(ConfigError, match="holds no models"):
            model_config.from_directory(place)
