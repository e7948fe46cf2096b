"""The shipped models are ordinary SavedModels: converters take all three, and the results compute the same."""

import pytest
import tensorflow as tf

from serving.contract import MODELS, SIGNATURE
from serving.pretrained import MODELS_DIR
from tests.training.test_export import INPUTS, assert_openvino_converts, assert_same, outputs_of


@pytest.mark.parametrize("name", MODELS)
def test_openvino_converts_it(name: str) -> None:
    assert_openvino_converts(name, MODELS_DIR / name / "1")


@pytest.mark.filterwarnings("ignore:.*tf.lite.Interpreter is deprecated")
@pytest.mark.parametrize("name", MODELS)
def test_tflite_converts_it(name: str) -> None:
    saved = MODELS_DIR / name / "1"
    converter = tf.lite.TFLiteConverter.from_saved_model(str(saved), signature_keys=[SIGNATURE])
    runner = tf.lite.Interpreter(model_content=converter.convert()).get_signature_runner(SIGNATURE)
    assert_same(name, runner(**INPUTS[name]), outputs_of(saved, **INPUTS[name]))
