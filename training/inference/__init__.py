"""The inference graphs: the trained networks' functions, laid out for serving.

Batch normalisation is folded into the weights and biases before it (in float64, rounded once), weights are constants,
pixels are uint8 on the outside, and what remains is computed by the shortest way. docs/performance.md tells what each
step is worth.
"""

from typing import Any

from serving.contract import CLASSIFIER, DISCRIMINATOR
from training.calibration import Calibration
from training.inference.classifier import classifier_module
from training.inference.discriminator import discriminator_module
from training.inference.generator import generator_module
from training.inference.module import InferenceModule

__all__ = ["InferenceModule", "inference_module"]


def inference_module(name: str, network: Any, calibration: Calibration | None = None) -> InferenceModule:
    """The graphs that are exported for a network.

    Args:
        name: GENERATOR, DISCRIMINATOR or CLASSIFIER.
        network: the trained Keras network, in float32.
        calibration: from the discriminator's logits to probabilities; None: the sigmoid alone.
    """
    if name == CLASSIFIER:
        return classifier_module(network)
    if name == DISCRIMINATOR:
        return discriminator_module(network, calibration or Calibration())
    return generator_module(network)
