"""serving.tf_serving.model_config: the models.config of TensorFlow Serving, and directories of models."""

from pathlib import Path

import pytest

from serving.tf_serving import model_config
from serving.tf_serving.model_config import All, ConfigError, Latest, ModelConfig, Specific

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


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "models.config"
    path.write_text(text)
    return path


def one(**fields: str) -> str:
    quoted = {"name": "m", "base_path": "/models/m", "model_platform": "tensorflow"} | fields
    return "config { " + " ".join(f'{name}: "{value}"' for name, value in quoted.items() if value) + " }"


def test_policies_labels_and_paths_are_read(tmp_path: Path) -> None:
    assert model_config.read(write(tmp_path, CONFIG)) == (
        ModelConfig("a", Path("/models/a"), Latest(1)),
        ModelConfig("b", Path("/models/b"), Latest(2)),
        ModelConfig("c", Path("/models/c"), All()),
        ModelConfig("d", Path("/models/d"), Specific(frozenset({3, 7})), {"stable": 3, "canary": 7}),
    )


def test_an_empty_list_is_a_configuration(tmp_path: Path) -> None:
    assert model_config.read(write(tmp_path, "model_config_list {}")) == ()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "no model_config_list"),
        ("model_config_list {", "models.config"),
        ("model_config_list { config { nam: 'a' } }", "nam"),
        (f"model_config_list {{ {one(name='')} }}", "no name"),
        (f"model_config_list {{ {one()} {one()} }}", "model m is listed more than once"),
        (f"model_config_list {{ {one(base_path='models/m')} }}", 'm needs an absolute base path, not "models/m"'),
        (f"model_config_list {{ {one(base_path='')} }}", "absolute"),
        (f"model_config_list {{ {one(model_platform='onnx')} }}", 'platform "onnx"'),
        (f"model_config_list {{ {one(model_platform='')} }}", "platform"),
        (
            'model_config_list { config { name: "m" base_path: "/m" model_platform: "tensorflow" '
            "model_version_policy { specific { versions: 0 } } } }",
            "from 1 upwards",
        ),
    ],
)
def test_what_no_server_can_follow_is_refused_with_its_reason(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        model_config.read(write(tmp_path, text))


def test_a_file_that_is_missing_or_no_text_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nothing\.config"):
        model_config.read(tmp_path / "nothing.config")
    (tmp_path / "models.config").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"models\.config"):
        model_config.read(tmp_path / "models.config")


def test_policies_choose_from_what_is_found() -> None:
    found = [1, 2, 5, 10]
    assert Latest().choose(found) == {10}
    assert Latest(3).choose(found) == {2, 5, 10}
    assert Latest(9).choose(found) == set(found)
    assert All().choose(found) == set(found)
    assert Specific(frozenset({2, 3})).choose(found) == {2}
    assert Latest().choose([]) == set()


def test_a_directory_of_models_serves_each_that_has_a_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for version in ("b/1", "a/2", "a/10", "empty", "half-written/3.tmp"):
        (tmp_path / "models" / version).mkdir(parents=True)
    (tmp_path / "models" / "models.config").touch()
    monkeypatch.chdir(tmp_path)
    assert model_config.from_directory(Path("models")) == (
        ModelConfig("a", tmp_path / "models/a"),
        ModelConfig("b", tmp_path / "models/b"),
    )


def test_a_directory_without_models_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(ConfigError, match="holds no models"):
            model_config.from_directory(path)
