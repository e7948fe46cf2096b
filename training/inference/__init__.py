"""The inference graphs: the trained networks' functions, laid out for serving.

Batch normalisation is folded into the weights and biases before it (in float64, rounded once), weights are constants,
pixels are uint8 on the outside, and what remains is computed by the shortest way. docs/performance.md tells what each
step is worth.
"""

from typing import Any

from serving.contract import CLASSIFIER, DISCRIMINATOR
from training.calibration import Calibration
from training.inference.bfloat16 import bfloat16_generator_module
from training.inference.classifier import classifier_module
from training.inference.discriminator import discriminator_module
from training.inference.generator import generator_module
from training.inference.module import InferenceModule

__all__ = ["InferenceModule", "inference_module"]


def inference_module(
    name: str, network: Any, calibration: Calibration | None = None, *, bfloat16: bool = False
) -> InferenceModule:
    """The graphs that are exported for a network.

    Args:
        name: GENERATOR, DISCRIMINATOR or CLASSIFIER.
        network: the trained Keras network, in float32.
        calibration: from the discriminator's logits to probabilities; None: the sigmoid alone.
        bfloat16: compute the generator's convolutions in bfloat16; the other models are in float32 always.
    """
    if name == CLASSIFIER:
        return classifier_module(network)
    if name == DISCRIMINATOR:
        return discriminator_module(network, calibration or Calibration())
    return bfloat16_generator_module(network) if bfloat16 else generator_module(network)
