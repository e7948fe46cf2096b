"""The shipped models are ordinary SavedModels: converters take all three, and the results compute the same."""

from typing import Any

import numpy as np
import openvino
import pytest
import tensorflow as tf
from openvino.tools.ovc import convert_model

from serving.contract import GENERATOR, MODELS, SIGNATURE
from tests.serving.model_server.embedded.test_saved_model import INPUTS
from tests.support.pretrained import pretrained
from tests.training.test_export import outputs_of


def inputs_of(name: str) -> dict[str, Any]:
    wanted = MODELS[name].input.name
    return {wanted: INPUTS[wanted]}


def assert_same(name: str, converted: Any, expected: dict[str, Any]) -> None:
    """Passes when pixels differ by one level at most, and everything else by rounding."""
    for key, value in expected.items():
        tolerance = 1 if name == GENERATOR else 1e-3 * np.abs(value).max()
        np.testing.assert_allclose(np.float64(converted[key]), np.float64(value), rtol=0, atol=tolerance)


@pytest.mark.parametrize("name", MODELS)
def test_openvino_converts_it(name: str) -> None:
    saved, inputs = pretrained(name), inputs_of(name)
    model = openvino.compile_model(convert_model(str(saved)), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    assert_same(name, model(inputs), outputs_of(saved, **inputs))


@pytest.mark.filterwarnings("ignore:.*tf.lite.Interpreter is deprecated")
@pytest.mark.parametrize("name", MODELS)
def test_tflite_converts_it(name: str) -> None:
    saved, inputs = pretrained(name), inputs_of(name)
    converter = tf.lite.TFLiteConverter.from_saved_model(str(saved), signature_keys=[SIGNATURE])
    runner = tf.lite.Interpreter(model_content=converter.convert()).get_signature_runner(SIGNATURE)
    assert_same(name, runner(**inputs), outputs_of(saved, **inputs))
