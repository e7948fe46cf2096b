"""Which models a server serves: TensorFlow Serving's ``models.config``, or simply a directory of models."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from google.protobuf import text_format

from serving import apis
from serving.errors import UserError
from serving.storage import find_versions

PLATFORM: Final = "tensorflow"


class ConfigError(UserError, ValueError):
    """A configuration that no server can follow. The message names the model at fault."""


@dataclass(frozen=True)
class ModelConfig:
    """One model: ``base_path`` (absolute) holds a directory for each version, ``labels`` are names for versions.

    The versions that are served are the ``specific`` ones, or the highest ``latest``; all if neither is given.
    """

    name: str
    base_path: Path
    latest: int | None = 1
    specific: frozenset[int] = frozenset()
    labels: Mapping[str, int] = field(default_factory=dict)

    def choose(self, found: Collection[int]) -> set[int]:
        """Returns the versions that are wanted of those found on disk."""
        if self.specific:
            return set(self.specific & set(found))
        return set(sorted(found)[-self.latest :] if self.latest else found)


def read(path: Path) -> tuple[ModelConfig, ...]:
    """Reads a ``models.config``. Raises ConfigError as ``read_proto`` does."""
    return from_proto(read_proto(path))


def read_proto(path: Path) -> apis.ModelServerConfig:
    """Reads a ``models.config``, a ModelServerConfig in protobuf's text format, as a message.

    Raises ConfigError when the file can't be read, isn't such a message, or breaks a rule of ``from_proto``.
    """
    try:
        message = text_format.Parse(path.read_text(encoding="utf-8"), apis.ModelServerConfig())
        from_proto(message)
    except OSError as error:
        raise ConfigError(
            f"{path}: {error.strerror}. digitgan export writes a models.config beside its models"
        ) from error
    except (UnicodeDecodeError, text_format.ParseError, ConfigError) as error:
        raise ConfigError(f"{path}: {error}") from error
    return message


def from_proto(message: apis.ModelServerConfig) -> tuple[ModelConfig, ...]:
    """Returns the models of a ModelServerConfig.

    Raises ConfigError when it holds no model list (an empty list is one), or a model without a name, listed
    twice, of another platform than "tensorflow", with a relative base path, or with versions below 1.
    """
    if message.WhichOneof("config") != "model_config_list":
        raise ConfigError("the configuration has no model_config_list")
    models = tuple(_model(model) for model in message.model_config_list.config)
    names = [model.name for model in models]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"model {name} is listed more than once")
    return models


def from_directory(models_dir: Path) -> tuple[ModelConfig, ...]:
    """Returns a model, with the policy "latest", for each sub-directory that holds at least one version.

    Raises ConfigError when there is none.
    """
    root = models_dir.absolute()
    children = sorted(root.iterdir()) if root.is_dir() else []
    models = tuple(ModelConfig(child.name, child) for child in children if child.is_dir() and find_versions(child))
    if not models:
        raise ConfigError(
            f"{models_dir} holds no models: <name>/<version>/saved_model.pb is looked for. "
            "digitgan train makes them, and digitgan export."
        )
    return models


def _model(model: apis.ModelConfig) -> ModelConfig:
    if not model.name:
        raise ConfigError("a model has no name")
    # model_type is the older way to say model_platform; 1 is TENSORFLOW.
    if model.model_platform != PLATFORM and not (model.model_type == 1 and not model.model_platform):
        raise ConfigError(f'model {model.name} has the platform "{model.model_platform}", not "{PLATFORM}"')
    base_path = Path(model.base_path)
    if not base_path.is_absolute():
        raise ConfigError(f'model {model.name} needs an absolute base path, not "{model.base_path}"')
    latest: int | None = 1
    specific = frozenset[int]()
    policy = model.model_version_policy
    match policy.WhichOneof("policy_choice"):
        case "all":
            latest = None
        case "latest":
            latest = max(1, policy.latest.num_versions)
        case "specific":
            specific = frozenset(policy.specific.versions)
            if not specific or min(specific) < 1:
                raise ConfigError(f"model {model.name}: a specific policy lists versions, from 1 upwards")
    return ModelConfig(model.name, base_path, latest, specific, dict(model.version_labels))
