"""The shipped models are ordinary SavedModels: converters take all three, and the results compute the same."""

from typing import Any

import numpy as np
import openvino
import pytest
import tensorflow as tf
from openvino.tools.ovc import convert_model

from serving.contract import GENERATOR, MODELS, SIGNATURE
from tests.serving.model_server.test_saved_model import INPUTS
from tests.support.pretrained import pretrained
from tests.training.test_export import outputs_of


@pytest.mark.filterwarnings("ignore:.*tf.lite.Interpreter is deprecated")
@pytest.mark.parametrize("name", MODELS)
def test_openvino_and_tflite_convert_it(name: str) -> None:
    """Pixels differ by one level at most, and everything else by rounding."""
    saved, wanted = str(pretrained(name)), MODELS[name].input.name
    inputs: dict[str, Any] = {wanted: INPUTS[wanted]}
    compiled = openvino.compile_model(convert_model(saved), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    converter = tf.lite.TFLiteConverter.from_saved_model(saved, signature_keys=[SIGNATURE])
    runner = tf.lite.Interpreter(model_content=converter.convert()).get_signature_runner(SIGNATURE)
    for key, expected in outputs_of(pretrained(name), **inputs).items():
        tolerance = 1 if name == GENERATOR else 1e-3 * np.abs(expected).max()
        for converted in (compiled(inputs), runner(**inputs)):
            np.testing.assert_allclose(np.float64(converted[key]), np.float64(expected), rtol=0, atol=tolerance)
