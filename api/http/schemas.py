"""The JSON of requests and answers: every field described and bounded."""

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    FailFast,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from serving.contract import CLASSES, MAX_SEED, NOISE_DIM
from serving.dataset import CONFIDENCE_FLOOR, Balance

MAX_FLOAT32 = (2 - 2**-23) * 2.0**127

Seed = Annotated[int, Field(strict=True, ge=0, le=MAX_SEED)]
Seeds = Annotated[list[Seed], FailFast()]
Digit = Annotated[int, Field(ge=0, lt=CLASSES)]
NoiseNumber = Annotated[float, Field(strict=True, allow_inf_nan=False, ge=-MAX_FLOAT32, le=MAX_FLOAT32)]
NoiseVector = Annotated[list[NoiseNumber], FailFast(), Field(min_length=NOISE_DIM, max_length=NOISE_DIM)]
NoiseVectors = Annotated[list[NoiseVector], FailFast()]


def _decimal(text: object) -> object:
    """Refuses what ``int()`` would take and a cache would see as another URL: "007", "+7", "7_0", " 7"."""
    if isinstance(text, str) and (not text.isascii() or not text.isdecimal() or (text[0] == "0" and text != "0")):
        raise PydanticCustomError("decimal", "Input should be an integer in plain decimal digits")
    return text


SeedInPath = Annotated[int, Field(ge=0, le=MAX_SEED, description="The digit's seed."), BeforeValidator(_decimal)]
Version = Annotated[int, Field(ge=0, le=MAX_SEED), BeforeValidator(_decimal)]
GeneratorVersion = Annotated[Version | None, Field(description="The generator's version; the newest by default.")]
_SCALE = Field(ge=1, le=32, description="Enlarges each pixel to a square of this side.")
Scale = Annotated[int, _SCALE, BeforeValidator(_decimal)]
Png = Annotated[str, Field(json_schema_extra={"contentEncoding": "base64", "contentMediaType": "image/png"})]


def _at(fields: list[str], message: str) -> PydanticCustomError:
    """Returns an error of these fields; of the whole body if there are none."""
    return PydanticCustomError("fields", message, {"fields": fields})


def _whole(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() else value


class _Body(BaseModel):
    """A request. A whole number may be written as 7.0, as in JSON Schema."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, use_attribute_docstrings=True)

    @field_validator("*", mode="wrap")
    @classmethod
    def _whole_numbers(cls, value: object, check: ValidatorFunctionWrapHandler) -> object:
        try:
            return check(value)
        except ValidationError:
            return check([_whole(one) for one in value] if isinstance(value, list) else _whole(value))


class _Digits(_Body):
    version: GeneratorVersion = None
    scale: Scale = 1


def _declare_sources(schema: dict[str, Any], model: "type[_Sourced]") -> None:
    schema["oneOf"] = [{"required": [name]} for name in model.SOURCES]


class _Sourced(_Digits):
    """A request that names its digits by exactly one of the fields in ``SOURCES``."""

    SOURCES: ClassVar[tuple[str, ...]]
    model_config = ConfigDict(json_schema_extra=_declare_sources)

    @model_validator(mode="after")
    def _exactly_one_source(self) -> Self:
        given = sorted(self.model_fields_set & set(self.SOURCES))
        if len(given) != 1:
            *others, last = self.SOURCES
            raise _at(given, f"Exactly one of {', '.join(others)} and {last} should be given")
        return self

    @property
    def source(self) -> str:
        """The name of the field in SOURCES that is given."""
        return next(name for name in self.SOURCES if name in self.model_fields_set)


class GenerateRequest(_Sourced):
    """The digits to generate: exactly one of ``seeds``, ``noise`` and ``count``."""

    SOURCES = ("seeds", "noise", "count")

    seeds: Seeds = Field(default_factory=list, min_length=1)
    """A digit for each seed. The same seed and version give the same pixels everywhere."""
    noise: NoiseVectors = Field(default_factory=list, min_length=1)
    """A digit for each vector of 100 numbers. The generator was trained on standard normal ones."""
    count: int = Field(default_factory=int, ge=1)
    """The number of digits, from seeds that the service chooses and returns."""
    start: Seed | None = None
    """With count: the first seed, in place of random seeds; the others follow in ascending order. With digit or curated
    it skips the seeds that do not fit. At the end of the index there may be fewer than count."""
    digit: Digit | None = None
    """With count: only images of this digit, with a confidence of at least 0.9."""
    curated: bool = False
    """With count: only images with a high confidence of the classifier and a high score of the discriminator. The
    generator's model card has both limits."""
    labels: bool = False
    """Adds the digit that the classifier reads in each image, and its confidence."""

    @model_validator(mode="after")
    def _kinds_need_count(self) -> Self:
        kinds = (("start", self.start is not None), ("digit", self.digit is not None), ("curated", self.curated))
        given = [name for name, is_given in kinds if is_given]
        if given and not self.count:
            raise _at(given, "Goes with count: seeds and noise determine the digits already")
        return self


class InterpolateRequest(_Sourced):
    """A path through the noise of two or more points: exactly one of ``seeds`` and ``noise``."""

    SOURCES = ("seeds", "noise")

    seeds: Seeds = Field(default_factory=list, min_length=2)
    """The points, as seeds."""
    noise: NoiseVectors = Field(default_factory=list, min_length=2)
    """The points, as vectors of 100 numbers."""
    steps: int = Field(10, ge=1, le=1000)
    """Steps from each point to the next. A step is a frame, and the last point is one more."""
    method: Literal["slerp", "lerp"] = "slerp"
    """The path: `slerp` an arc (spherical interpolation), `lerp` a straight line. An arc keeps the length that normal
    noise has; a line has lengths that the generator was not trained on."""
    loop: bool = False
    """Continue from the last point to the first, which is not repeated. Two points: there and back."""
    frame_ms: int = Field(80, ge=20, le=10_000)
    """Milliseconds a frame, in an animation. A GIF rounds them to tens."""


class DatasetRequest(_Digits):
    """The digits to collect: the first ``count`` that pass, in the order of their seeds."""

    count: int = Field(ge=1)
    """The number of digits."""
    balance: Balance = "uniform"
    """The share of each digit: equal shares (`uniform`), MNIST's (`mnist`), or as the digits come (`natural`)."""
    quotas: list[Annotated[int, Field(ge=0)]] | None = Field(None, min_length=CLASSES, max_length=CLASSES)
    """In place of balance: the most of each digit, from 0 to 9."""
    confidence_floor: float = Field(CONFIDENCE_FLOOR, ge=0, le=1)
    """The least confidence of the classifier."""
    logit_floor: float | None = Field(None, allow_inf_nan=False)
    """The least logit of the discriminator; none by default. (A floor thins out some digits more than others: each has
    logits of its own.)"""
    first_seed: Seed = 0
    """The seed to begin at."""

    @model_validator(mode="after")
    def _quotas_are_enough(self) -> Self:
        if self.quotas is not None and "balance" in self.model_fields_set:
            raise _at(["balance", "quotas"], "Both say how many of each digit: give one")
        if self.quotas is not None and sum(self.quotas) < self.count:
            raise _at(["quotas"], "Together the quotas should be at least count")
        return self


class ScoreOptions(BaseModel):
    """How images are scored: query parameters, members of the JSON, or form fields."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    fit: Literal["auto", "always", "never"] = "auto"
    """Which images are fitted into 28×28 pixels: all but those that are already like MNIST's (`auto`), all, or none.
    With `never` each image should have 28×28 gray, opaque pixels."""
    labels: bool = False
    """Adds the digit that the classifier reads in each image, and its confidence."""
    fitted_images: bool = False
    """Adds the 28×28 pixels that were scored."""


class ScoreRequest(_Body, ScoreOptions):
    """Images to score."""

    images: list[Png] = Field(min_length=1)
    """PNG, JPEG or WebP files. Data URLs, base64url, line breaks and missing padding are accepted too."""


class _Generated(BaseModel):
    """What every answer of a model begins with."""

    model: str = Field(description="The model, as the model server names it.")
    version: int = Field(description="The version that answered.")


class GeneratedImage(BaseModel):
    """One digit, or one frame."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    seed: int = Field(default_factory=int, ge=0, le=MAX_SEED)
    """The digit's seed; absent for noise and frames."""
    digit: Digit = Field(default_factory=int)
    """The digit that the image shows; present with labels, digit and curated."""
    confidence: float = Field(default_factory=float, ge=0, le=1)
    """The classifier's probability of that digit; present with it."""
    png: Png
    """The digit as an 8-bit grayscale PNG."""


class GenerateResponse(_Generated):
    """The digits, in the order of the request."""

    images: list[GeneratedImage] = Field(description="A digit for each seed, noise vector or frame.")


class Score(BaseModel):
    """What the discriminator says of one image."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    probability: float = Field(ge=0, le=1)
    """The probability that the image is real, calibrated."""
    logit: float
    """The discriminator's raw output: the higher, the more real."""
    verdict: Literal["real", "fake"] | None
    """real if the probability is above 0.5; null without ink."""
    fitted: bool
    """Whether the image was fitted into 28×28 pixels first; if not, it was scored as sent."""
    ink: bool
    """Whether any ink was found. Without, the scored pixels say nothing."""
    polarity: Literal["dark-on-light", "light-on-dark"] | None
    """What was fitted: dark ink or light ink; null where nothing was."""
    box: list[int] | None = Field(min_length=4, max_length=4)
    """Where the ink that was fitted is, in pixels of the upright image: left, top, right, bottom."""
    reason: str | None
    """Why verdict, digit and confidence are null; null where they are not."""
    digit: Digit | None = Field(default_factory=int)
    """What the image reads as, null without ink; there with labels."""
    confidence: float | None = Field(default_factory=float, ge=0, le=1)
    """The classifier's probability of that digit; there with labels."""
    digit_probabilities: list[float] | None = Field(default_factory=list, min_length=CLASSES, max_length=CLASSES)
    """The classifier's probability of each digit from 0 to 9; present with labels."""
    png: Png = Field(default_factory=str)
    """The 28×28 pixels that were scored, as an 8-bit grayscale PNG; present with fitted_images."""


class ScoreResponse(_Generated):
    """The scores, in the order of the images."""

    scores: list[Score] = Field(description="A score for each image.")


class StoryMilestone(BaseModel):
    """The images of the fixed seeds after a step."""

    step: int = Field(description="The step.")
    epoch: float = Field(description="Passes over the training set until then.")
    stage: str = Field(description="noise, first shapes, patterns, sharper or mature, by what is measured.")
    legible: float = Field(description="Share of the digits that the classifier classifies with confidence.")
    png: Png = Field(description="The digits of the seeds 0 to 63 in rows of 8, without margins: 224×224 pixels.")


class StoryResponse(BaseModel):
    """The story of a training run (docs/quality.md)."""

    run: dict[str, Any] = Field(
        description="preset, loss, steps, epochs, batch_size, images; chosen_step, whose generator is served (null: the"
        " last one's)."
    )
    seeds: int = Field(description="How many seeds are pictured, from 0 on.")
    milestones: list[StoryMilestone] = Field(description="By step.")
    log: dict[str, list[float | None]] = Field(
        description="By column: step, generator_loss and discriminator_loss in nats, accuracy_real, accuracy_fake."
        " null: not finite."
    )
    guessing: dict[str, float] = Field(description="Both losses where the discriminator could only guess.")
    stability: dict[str, Any] = Field(description="The verdict on the losses: state, words, and the numbers behind it.")
    evaluations: list[dict[str, Any]] = Field(description="The figures on the way, by step.")


class VersionError(BaseModel):
    """Why a version is not available."""

    code: str = Field(description="A gRPC status code's name.")
    message: str = Field(description="The model server's own words.")


class ModelVersion(BaseModel):
    """One version of a model."""

    version: int = Field(description="The version's number.")
    state: str = Field(description="START, LOADING, AVAILABLE, UNLOADING or END.")
    error: VersionError | None = Field(description="What ended the version, if an error did.")
    card: dict[str, Any] | None = Field(
        description="The model card: how the version was trained, its measured quality, its files' SHA-256."
    )


class Model(BaseModel):
    """One model that the routes need."""

    name: str = Field(description="The model's name.")
    status: Literal["available", "degraded", "unavailable"] = Field(
        description="degraded: the version that was to take over ended with an error, and an older one serves on."
    )
    detail: str | None = Field(description="What is wrong, with the model server's words; null if nothing is.")
    serving: int | None = Field(description="The version that answers requests without a version.")
    versions: list[ModelVersion] = Field(description="Newest first; empty if the model server does not know the model.")


class ModelsResponse(BaseModel):
    """The models that the routes need."""

    models: list[Model] = Field(description="The generator, the discriminator and the classifier.")


class Health(BaseModel):
    """The answer of a probe that succeeds."""

    status: Literal["live", "ready"] = Field(description="What the probe checks.")


class FieldError(BaseModel):
    """What is wrong, and where: one of ``pointer``, ``parameter`` and ``model`` is present."""

    pointer: str = Field(default_factory=str, description="A JSON pointer into the body; empty for all of it.")
    parameter: str = Field(default_factory=str, description="A part of the path or the query.")
    model: str = Field(default_factory=str, description="A model that is not ready.")
    detail: str = Field(description="What is wrong there.")


class Problem(BaseModel):
    """A problem document (RFC 9457)."""

    type: str = Field(description="Stable; the path of a page about this type of problem.")
    title: str = Field(description="The same for every problem of this type.")
    status: int = Field(description="The HTTP status.")
    detail: str = Field(description="What helps to repair this request.")
    errors: list[FieldError] = Field(default_factory=list, description="Every place at fault, where there are any.")
    error: str = Field(
        default_factory=str, description="What detail says, where the Open Inference Protocol has it; below /v2 only."
    )
