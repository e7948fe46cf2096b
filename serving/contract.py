"""What a served model is: the names, shapes and dtypes that training, model server and gateway agree on.

This module imports the standard library only, and every other module takes these constants from here.

==============  ===================  ================================  ====================================
model           signature            input                             output
==============  ===================  ================================  ====================================
generator       ``serving_default``  ``noise`` float32 [N, 100]        ``images`` uint8 [N, 28, 28, 1]
discriminator   ``serving_default``  ``images`` uint8 [N, 28, 28, 1]   ``logits`` float32 [N],
                                                                       ``probabilities`` float32 [N]
classifier      ``serving_default``  ``images`` uint8 [N, 28, 28, 1]   ``probabilities`` float32 [N, 10]
==============  ===================  ================================  ====================================

Two models have more signatures. The generator's ``seed_index`` tells what the digits of the seeds 0, 1, 2, … look
like: page p, of :data:`INDEX_PAGE` seeds, begins at seed p · INDEX_PAGE. Its ``story`` tells how it learned: a JSON
document (``docs/story.md``) of ``story_bytes`` bytes, of which page p begins at byte p · STORY_PAGE. A version may lack
either. The classifier's ``features`` are what the evaluation measures distances in.

==============  ===================  ================================  ====================================
model           signature            input                             output
==============  ===================  ================================  ====================================
generator       ``seed_index``       ``pages`` int64 [N]               ``digits`` uint8 [N, 4096] (0 to 9; 255
                                                                       for a seed beyond the index),
                                                                       ``confidences`` float32 [N, 4096],
                                                                       ``logits`` float32 [N, 4096],
                                                                       ``curated`` uint8 [N, 4096] (0 or 1),
                                                                       ``indexed_seeds`` int64 [N] (the
                                                                       length of the whole index)
generator       ``story``            ``pages`` int64 [N]               ``story`` uint8 [N, 65536] (0 beyond the
                                                                       end), ``story_bytes`` int64 [N] (the
                                                                       length of the whole document)
classifier      ``features``         ``images`` uint8 [N, 28, 28, 1]   ``features`` float32 [N, 128]
==============  ===================  ================================  ====================================

Real is 1 and fake is 0: a positive logit means real. Pixels are uint8 outside the graph and -1 … 1 inside it:
``x / 127.5 - 1`` on the way in; ``x * 127.5 + 127.5``, clamped to 0 … 255 and then rounded, on the way out.
"""

from dataclasses import dataclass
from typing import Final

GENERATOR: Final = "generator"
DISCRIMINATOR: Final = "discriminator"
CLASSIFIER: Final = "classifier"
SIGNATURE: Final = "serving_default"
SEED_INDEX: Final = "seed_index"
STORY: Final = "story"
"""A signature of the generator, and the name of its output."""
FEATURES: Final = "features"
"""A second signature of the classifier, and the name of its output."""

NOISE_DIM: Final = 100
IMAGE_SIDE: Final = 28
IMAGE_SHAPE: Final = (IMAGE_SIDE, IMAGE_SIDE, 1)
CLASSES: Final = 10
FEATURE_WIDTH: Final = 128

NOISE: Final = "noise"
IMAGES: Final = "images"
LOGITS: Final = "logits"
PROBABILITIES: Final = "probabilities"
PAGES: Final = "pages"
DIGITS: Final = "digits"
CONFIDENCES: Final = "confidences"
CURATED: Final = "curated"
INDEXED_SEEDS: Final = "indexed_seeds"
STORY_BYTES: Final = "story_bytes"

INDEX_PAGE: Final = 4096
"""Seeds a page of the seed index."""
NOT_INDEXED: Final = 255
"""What ``digits`` holds for a seed beyond the index."""

STORY_PAGE: Final = 65_536
"""Bytes a page of the story."""

MAX_SEED: Final = 2**53 - 1
"""The largest seed: the largest integer that JSON readers agree on (RFC 8259, section 6)."""

PIXEL_SCALE: Final = 127.5
"""Half the range of a uint8 pixel: the factor between pixel values and the networks' -1 … 1."""

BATCH_SIZES: Final = (1, 2, 4, 8, 16, 24, 32, 48, 64, 128, 256)
"""The batch sizes that a model is warmed up with; a model server pads smaller batches up to the next one.

24 and 48, since batches under load are of about such sizes, and would be computed as 32 and 64. Between multiples of 8,
TensorFlow 2.21 rounds a row of the discriminator otherwise than in a batch of 64.
"""

MODEL_CARD: Final = "model.json"
"""The model card's file name inside a version directory."""

WARMUP_REQUESTS: Final = "assets.extra/tf_serving_warmup_requests"
"""Where TensorFlow Serving looks for warm-up requests inside a version directory (a TFRecord file of PredictionLog)."""


@dataclass(frozen=True)
class TensorSpec:
    """One named input or output. ``shape`` leaves out the batch dimension, which is always first and always free."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class ModelSpec:
    """One signature of the model ``name``."""

    name: str
    input: TensorSpec
    outputs: tuple[TensorSpec, ...]
    signature: str = SIGNATURE


MODELS: Final[dict[str, ModelSpec]] = {
    spec.name: spec
    for spec in (
        ModelSpec(
            GENERATOR,
            TensorSpec(NOISE, "float32", (NOISE_DIM,)),
            (TensorSpec(IMAGES, "uint8", IMAGE_SHAPE),),
        ),
        ModelSpec(
            DISCRIMINATOR,
            TensorSpec(IMAGES, "uint8", IMAGE_SHAPE),
            (TensorSpec(LOGITS, "float32", ()), TensorSpec(PROBABILITIES, "float32", ())),
        ),
        ModelSpec(
            CLASSIFIER,
            TensorSpec(IMAGES, "uint8", IMAGE_SHAPE),
            (TensorSpec(PROBABILITIES, "float32", (CLASSES,)),),
        ),
    )
}
"""Every model that the project serves, by name, with its ``serving_default``."""

SIGNATURES: Final[dict[tuple[str, str], ModelSpec]] = {
    (spec.name, spec.signature): spec
    for spec in (
        *MODELS.values(),
        ModelSpec(
            GENERATOR,
            TensorSpec(PAGES, "int64", ()),
            (
                TensorSpec(DIGITS, "uint8", (INDEX_PAGE,)),
                TensorSpec(CONFIDENCES, "float32", (INDEX_PAGE,)),
                TensorSpec(LOGITS, "float32", (INDEX_PAGE,)),
                TensorSpec(CURATED, "uint8", (INDEX_PAGE,)),
                TensorSpec(INDEXED_SEEDS, "int64", ()),
            ),
            SEED_INDEX,
        ),
        ModelSpec(
            GENERATOR,
            TensorSpec(PAGES, "int64", ()),
            (TensorSpec(STORY, "uint8", (STORY_PAGE,)), TensorSpec(STORY_BYTES, "int64", ())),
            STORY,
        ),
        ModelSpec(
            CLASSIFIER,
            TensorSpec(IMAGES, "uint8", IMAGE_SHAPE),
            (TensorSpec(FEATURES, "float32", (FEATURE_WIDTH,)),),
            FEATURES,
        ),
    )
}
"""Every signature, by model and name."""
