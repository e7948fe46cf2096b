"""serving.tf_serving.model_config: the models.config of TensorFlow Serving, and directories of models."""

from pathlib import Path

import pytest

from serving.tf_serving import model_config
from serving.tf_serving.model_config import ConfigError, ModelConfig

CONFIG = """
model_config_list {
  # comments are fine
  config { name: "a" base_path: "/models/a" model_platform: "tensorflow" }
  config {
    name: 'b'
    base_path: '/models/b'
    model_platform: 'tensorflow'
    model_version_policy { latest { num_versions: 2 } }
  }
  config { name: "c" base_path: "/models/c" model_platform: "tensorflow" model_version_policy { all {} } }
  config {
    name: "d"
    base_path: "/models/d"
    model_type: TENSORFLOW
    model_version_policy { specific { versions: 3 versions: 7 } }
    version_labels { key: "stable" value: 3 }
    version_labels { key: "canary" value: 7 }
    logging_config { sampling_config { sampling_rate: 0.1 } }
  }
}
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "models.config"


def one(**fields: str) -> str:
    quoted = {"name": "m", "base_path": "/models/m", "model_platform": "tensorflow"} | fields
    return "config { " + " ".join(f'{name}: "{value}"' for name, value in quoted.items() if value) + " }"


def test_policies_labels_and_paths_are_read(path: Path) -> None:
    path.write_text(CONFIG)
    models = model_config.read(path)
    assert models == (
        ModelConfig("a", Path("/models/a")),
        ModelConfig("b", Path("/models/b"), latest=2),
        ModelConfig("c", Path("/models/c"), latest=None),
        ModelConfig("d", Path("/models/d"), specific=frozenset({3, 7}), labels={"stable": 3, "canary": 7}),
    )
    assert [model.choose([2, 3, 10, 5]) for model in models] == [{10}, {5, 10}, {2, 3, 5, 10}, {3}]
    assert models[1].choose([1]) == {1}
    path.write_text("model_config_list {}")
    assert model_config.read(path) == ()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (None, "models.config"),
        (b"\xff\xfe", "models.config"),
        ("", "no model_config_list"),
        ("model_config_list {", "models.config"),
        ("model_config_list { config { nam: 'a' } }", "nam"),
        (f"model_config_list {{ {one(name='')} }}", "no name"),
        (f"model_config_list {{ {one(base_path='')} }}", "absolute"),
        (
            'model_config_list { config { name: "m" base_path: "/m" model_platform: "tensorflow" '
            "model_version_policy { specific { versions: 0 } } } }",
            "from 1 upwards",
        ),
    ],
)
def test_what_no_server_can_follow_is_refused_with_its_reason(
    path: Path, text: str | bytes | None, complaint: str
) -> None:
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
