"""The configuration of a training run: presets, all settings, and their form on disk."""

import json
import math
from collections.abc import Callable
from dataclasses import MISSING, asdict, dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any, Final, Self, get_type_hints

from serving.errors import UserError
from serving.files import write_atomically

CONFIG_FILE: Final = "config.json"
LOSS_NAMES: Final = ("non-saturating", "relativistic")
PACKAGED, OWN = "package", "own"
"""Which classifier measures a run: the one in the package, or one that is trained on the run's images."""
METRICS: Final = ("generator_loss", "discriminator_loss", "accuracy_real", "accuracy_fake")
"""What a step measures: losses in nats, and the shares of images that the discriminator classifies correctly."""


class ConfigError(UserError, ValueError):
    """A setting is impossible, or two contradict each other. The message names the one at fault."""


@dataclass(frozen=True)
class Rule:
    """What holds for the value of a field, and how an error says it. It is a part of the field's annotation."""

    holds: Callable[[Any], bool]
    words: str


class Checked:
    """A dataclass that checks its fields: the first that breaks the rule in its annotation raises ConfigError."""

    def __post_init__(self) -> None:
        for name, hint in get_type_hints(type(self), include_extras=True).items():
            value = getattr(self, name)
            for rule in getattr(hint, "__metadata__", ()):
                if not rule.holds(value):
                    raise ConfigError(f"{name} must be {rule.words}, not {value}")


STRATIFIED, LAST = HOLD_OUTS = ("stratified", "last")
"""Which training images are held out: every twelfth of each class, or the last ones, as in the first runs."""

Count = Annotated[int, Rule(lambda value: value >= 1, "at least 1")]
Seed = Annotated[int, Rule(lambda value: 0 <= value < 2**31, "from 0 to 2147483647")]
Positive = Annotated[float, Rule(lambda value: 0 < value < math.inf, "positive")]
Weight = Annotated[float, Rule(lambda value: 0 <= value < math.inf, "0 (off) or positive")]
Share = Annotated[float, Rule(lambda value: 0 <= value < 1, "from 0 up to, not including, 1")]


@dataclass(frozen=True)
class Recipe(Checked):
    """How the two networks are trained; what they are is fixed (:mod:`training.gan.networks`).

    Attributes:
        batch_size: images a step, over all replicas together.
        generator_learning_rate, discriminator_learning_rate, beta_1, beta_2: Adam's (Kingma & Ba 2015).
        final_learning_rate: the share of both learning rates that is left at the end of their cosine (Loshchilov &
            Hutter 2017). 1 keeps them constant.
        gradient_penalty: the factor of the discriminator's zero-centred gradient penalty on real and on generated
            images alike (R1 and R2, Mescheder et al. 2018).
        feature_weight: of the generator's loss against each feature discriminator; 0 leaves these out.
        feature_penalty: as ``gradient_penalty``, for the feature discriminators.
        dropout: share of activations dropped in the discriminator.
        ema_decay: decay a step of the moving average of the generator's weights that is exported and pictured in place
            of the last weights (Yazıcı et al. 2019); 0 turns it off.
        augmentation: share of the images, real and generated, that are transformed before the discriminators see them.
    """

    batch_size: Annotated[int, Rule(lambda value: value >= 2, "at least 2 (batch normalisation needs a batch)")]
    generator_learning_rate: Positive
    discriminator_learning_rate: Positive
    beta_1: Share
    beta_2: Share
    final_learning_rate: Annotated[float, Rule(lambda value: 0 <= value <= 1, "from 0 to 1")]
    loss: Annotated[str, Rule(LOSS_NAMES.__contains__, f"one of {', '.join(LOSS_NAMES)}")]
    gradient_penalty: Weight
    feature_weight: Weight
    feature_penalty: Weight
    dropout: Share
    ema_decay: Share
    augmentation: Share = 0.0


DECK: Final = Recipe(
    batch_size=256,
    generator_learning_rate=1e-4,
    discriminator_learning_rate=1e-4,
    beta_1=0.9,
    beta_2=0.999,
    final_learning_rate=1.0,
    loss="non-saturating",
    gradient_penalty=0.0,
    feature_weight=0.0,
    feature_penalty=0.0,
    dropout=0.2,
    ema_decay=0.0,
)
"""The course deck's own recipe."""
PRESETS: Final[dict[str, Recipe]] = {
    "deck": DECK,
    # Step size and momentum of Radford et al. 2016 (section 4), and the average of the generator's weights.
    "dcgan": replace(DECK, generator_learning_rate=2e-4, discriminator_learning_rate=2e-4, beta_1=0.5, ema_decay=0.999),
    # What won the trials of docs/recipe.md: the relativistic loss with both gradient penalties and Adam's momenta of
    # Huang et al. 2024 (R3GAN), feature discriminators (Sauer et al. 2021), no dropout, half the batch, large steps
    # that decay, and the average of the weights.
    "best": Recipe(
        batch_size=128,
        generator_learning_rate=16e-4,
        discriminator_learning_rate=8e-4,
        beta_1=0.0,
        beta_2=0.99,
        final_learning_rate=0.02,
        loss="relativistic",
        gradient_penalty=0.2,
        feature_weight=5.0,
        feature_penalty=0.02,
        dropout=0.0,
        ema_decay=0.999,
    ),
}
DEFAULT_PRESET: Final = "best"


@dataclass(frozen=True)
class TrainingConfig(Checked):
    """Everything that decides what a run computes, resolved: no preset and no default is left to look up.

    Attributes:
        seed: root of initial weights, noise, dropout and the order of images.
        steps: the run's whole length.
        images: size of the training set without its validation images; an epoch is one pass over it.
        data: where the images came from, ``"keras"`` or a path.
        data_sha256: of the training images' pixels, so that a resumed run sees the same ones.
        hold_out: which training images neither network sees, for choices and calibrations.
        classifier: what measures and labels the run's digits: PACKAGED, OWN, or a base directory's path.
        mixed_precision: compute in bfloat16 and keep weights in float32.
        xla: compile the steps with XLA, which is faster on a GPU and slower on a CPU.
        log_every: steps a line in metrics.jsonl, each the mean over its interval.
        evaluate_every: steps between evaluations of the averaged generator on the validation images, of which the
            last is at the end; 0: none, and the last generator is the one that is served.
    """

    preset: str
    recipe: Recipe
    seed: Seed
    steps: Count
    images: Count
    data: str
    data_sha256: str
    hold_out: Annotated[str, Rule(HOLD_OUTS.__contains__, f"one of {', '.join(HOLD_OUTS)}")] = STRATIFIED
    classifier: str = PACKAGED
    mixed_precision: bool = False
    xla: bool = False
    log_every: Count = 10
    checkpoint_every: Count = 215
    evaluate_every: Annotated[int, Rule(lambda value: value >= 0, "0 (never) or positive")] = 1075

    def epochs_at(self, step: int) -> float:
        """Passes over the training set after ``step`` steps."""
        return step * self.recipe.batch_size / self.images

    def step_of_epoch(self, epoch: float) -> int:
        """The step that completes ``epoch`` passes over the training set."""
        return math.ceil(epoch * self.images / self.recipe.batch_size)

    def to_json(self) -> str:
        """The configuration as it is printed and stored."""
        return json.dumps(asdict(self), indent=2)

    def write(self, run: Path) -> None:
        """Writes config.json into the run directory."""
        write_atomically(run / CONFIG_FILE, self.to_json() + "\n")

    @classmethod
    def read(cls, run: Path) -> Self:
        """Reads what :meth:`write` wrote. Raises ConfigError if the directory holds no run."""
        try:
            values: dict[str, Any] = json.loads((run / CONFIG_FILE).read_text("utf-8"))
            recipe = values["recipe"]
            if "feature_critics" in recipe:  # Its name in the first runs, which name no hold-out either.
                recipe["feature_weight"] = recipe.pop("feature_critics")
            return cls(**{"hold_out": LAST, **values, "recipe": Recipe(**recipe)})
        except FileNotFoundError as error:
            raise ConfigError(f"{run} holds no run: there is no {CONFIG_FILE} in it") from error
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ConfigError(f"{run / CONFIG_FILE} can't be read: {error}") from error


SETTINGS: Final[dict[str, type]] = get_type_hints(Recipe) | {
    each.name: get_type_hints(TrainingConfig)[each.name] for each in fields(TrainingConfig) if each.default != MISSING
}
"""What ``--set`` may change, with its type: the recipe's fields, and those of a run that have a default."""


def parse_setting(text: str) -> tuple[str, Any]:
    """Reads ``name=value``, as ``--set`` takes it. Raises ConfigError for another name, and for another type."""
    name, _, value = text.partition("=")
    name = name.strip().replace("-", "_")
    if name not in SETTINGS:
        raise ConfigError(f"--set {text}: there is no setting {name}; the settings are {', '.join(SETTINGS)}")
    kind = SETTINGS[name]
    values = {"true": True, "false": False} if kind is bool else None
    try:
        return name, values[value.strip().lower()] if values else kind(value)
    except (ValueError, KeyError) as error:
        expected = "true or false" if kind is bool else {int: "an integer", float: "a number"}.get(kind, "text")
        raise ConfigError(f"--set {text}: {name} must be {expected}") from error
