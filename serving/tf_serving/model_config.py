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
class Latest:
    """The policy that wants the highest ``num_versions`` versions on disk."""

    num_versions: int = 1

    def choose(self, found: Collection[int]) -> set[int]:
        """Returns the versions that are wanted of those found on disk."""
        return set(sorted(found)[-self.num_versions :])


@dataclass(frozen=True)
class All:
    """The policy that wants every version on disk."""

    def choose(self, found: Collection[int]) -> set[int]:
        """Returns the versions that are wanted of those found on disk."""
        return set(found)


@dataclass(frozen=True)
class Specific:
    """The policy that wants the versions named, where they are on disk."""

    versions: frozenset[int]

    def choose(self, found: Collection[int]) -> set[int]:
        """Returns the versions that are wanted of those found on disk."""
        return set(self.versions & set(found))


@dataclass(frozen=True)
class ModelConfig:
    """One model: ``base_path`` (absolute) holds a directory for each version, ``labels`` are names for
    versions.
    """

    name: str
    base_path: Path
    policy: Latest | All | Specific = Latest()
    labels: Mapping[str, int] = field(default_factory=dict)


def read(path: Path) -> tuple[ModelConfig, ...]:
    """Reads a ``models.config``, a ModelServerConfig in protobuf's text format.

    Raises ConfigError when the file can't be read, isn't such a message, or breaks a rule of ``from_proto``.
    """
    return from_proto(read_proto(path))


def read_proto(path: Path) -> apis.ModelServerConfig:
    """Reads a ``models.config`` as the message that it is. Raises ConfigError as ``read`` does."""
    try:
        message = text_format.Parse(path.read_text(encoding="utf-8"), apis.ModelServerConfig())
    except OSError as error:
        raise ConfigError(
            f"{path}: {error.strerror}. digitgan export writes a models.config beside its models"
        ) from error
    except (UnicodeDecodeError, text_format.ParseError) as error:
        raise ConfigError(f"{path}: {error}") from error
    try:
        from_proto(message)
    except ConfigError as error:
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
    return ModelConfig(model.name, base_path, _policy(model), dict(model.version_labels))


def _policy(model: apis.ModelConfig) -> Latest | All | Specific:
    policy = model.model_version_policy
    match policy.WhichOneof("policy_choice"):
        case "all":
            return All()
        case "specific":
            versions = frozenset(policy.specific.versions)
            if not versions or min(versions) < 1:
                raise ConfigError(f"model {model.name}: a specific policy lists versions, from 1 upwards")
            return Specific(versions)
        case _:
            return Latest(max(1, policy.latest.num_versions))
