"""What a served model is: the names, shapes and dtypes that training, model server and gateway agree on.

SIGNATURES lists every model's inputs and outputs. This module imports the standard library only.

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
"""A signature of the generator: what the digits of the seeds 0, 1, 2, … look like. A version may lack it."""
STORY: Final = "story"
"""A signature of the generator, and its output: how it learned, as JSON (docs/quality.md). A version may lack it."""
FEATURES: Final = "features"
"""A signature of the classifier, and its output: what the evaluation measures distances in."""

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
"""The length of the whole index, in each row."""
STORY_BYTES: Final = "story_bytes"
"""The length of the whole document, in each row."""

INDEX_PAGE: Final = 4096
"""Seeds a page of the seed index: page p begins at seed p · INDEX_PAGE."""
NOT_INDEXED: Final = 255
"""What ``digits`` holds for a seed beyond the index."""

STORY_PAGE: Final = 65_536
"""Bytes a page of the story, zeros beyond its end."""

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


SIGNATURES: Final[dict[tuple[str, str], ModelSpec]] = {
    (spec.name, spec.signature): spec
    for spec in (
        ModelSpec(GENERATOR, TensorSpec(NOISE, "float32", (NOISE_DIM,)), (TensorSpec(IMAGES, "uint8", IMAGE_SHAPE),)),
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

MODELS: Final = {spec.name: spec for spec in SIGNATURES.values() if spec.signature == SIGNATURE}
"""Every model that the project serves, by name, with its ``serving_default``."""
