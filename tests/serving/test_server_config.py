"""TensorFlow Serving's configuration files say what is meant."""

from pathlib import Path

from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

from serving.tf_serving import model_config, server_config


def test_our_own_reader_and_tensorflow_servings_agree(tmp_path: Path) -> None:
    server_config.write_configs(tmp_path, ["generator"], Path("/srv/models"), threads=3)
    text = (tmp_path / "models.config").read_text()
    official = text_format.Parse(text, model_server_config_pb2.ModelServerConfig())
    assert [entry.base_path for entry in official.model_config_list.config] == ["/srv/models/generator"]
    (ours,) = model_config.read(tmp_path / "models.config")
    assert (ours.name, ours.base_path) == ("generator", Path("/srv/models/generator"))
    assert "num_batch_threads { value: 3 }" in (tmp_path / "batching.config").read_text()
