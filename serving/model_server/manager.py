"""All models of a server: what the API asks about and changes."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Final

from grpc import StatusCode

from serving import apis
from serving.model_server.errors import ServingError, invalid_argument
from serving.model_server.loaded_version import LoadedVersion
from serving.model_server.model import Model, State, Version
from serving.model_server.options import ServerOptions
from serving.tf_serving.model_config import ModelConfig

CANCELLED_SECONDS: Final = 0.2
"""How long it takes, at most, until waiting for models ends when it is cancelled."""


class Manager:
    """The models by name. Methods can be called from any thread."""

    def __init__(self, options: ServerOptions) -> None:
        self._options = options
        self._changed = threading.Condition()
        self._configuring = threading.Lock()
        self._models: dict[str, Model] = {}
        self._retired: dict[str, Model] = {}  # the last model of each name that isn't served any more

    def configure(self, configs: Sequence[ModelConfig], cancelled: threading.Event) -> None:
        """Serves these models, and no others, from now on.

        Returns when each new model has an available version, or ``cancelled`` is set. It waits for a model that has no
        version on disk. Meanwhile, other calls wait, as TensorFlow Serving's reloads do.

        Raises ServingError: FAILED_PRECONDITION, and nothing has changed, if an existing label would move to a version
        that isn't available (a new label can be there before its version); UNKNOWN if every version of a new model has
        failed to load.
        """
        with self._configuring:
            for config in configs:
                self._check_labels(config)
            names = {config.name for config in configs}
            for name in self._models.keys() - names:
                self._retire(name)
            new = names - self._models.keys()
            for config in configs:
                if config.name in new:
                    model = Model(config, self._options, self._changed)
                    with self._changed:
                        self._models[config.name] = model
                else:
                    self._models[config.name].configure(config)
            with self._changed:
                while not cancelled.is_set() and not all(self._is_available(name) for name in new):
                    self._changed.wait(CANCELLED_SECONDS)

    @contextmanager
    def use(self, spec: apis.ModelSpec) -> Iterator[tuple[int, LoadedVersion]]:
        """Gives the version that ``spec`` names, to run, and keeps it loaded meanwhile.

        Raises ServingError: INVALID_ARGUMENT without a name or for an unknown label, NOT_FOUND for an
        unknown model or a version that isn't available.
        """
        number = spec.version.value if spec.HasField("version") else None  # None for a label, and for the newest
        if not spec.name:
            raise invalid_argument("ModelSpec has no name specified.")
        with self._changed:
            model = self._models.get(spec.name)
            if spec.HasField("version_label"):
                number = model.config.labels.get(spec.version_label) if model else None
                if number is None:
                    raise invalid_argument(f"Unrecognized servable version label: {spec.version_label}")
            available = model.available if model else ()
            version = next((each for each in available if number in (None, each.number)), None)
            if version is None or version.loaded is None:
                wanted = f"Latest({spec.name})" if number is None else f"Specific({spec.name}, {number})"
                raise ServingError(StatusCode.NOT_FOUND, f"Servable not found for request: {wanted}")
            version.requests += 1
            loaded = version.loaded
        try:
            yield version.number, loaded
        finally:
            with self._changed:
                version.requests -= 1
                if version.state == State.UNLOADING:
                    self._changed.notify_all()

    def versions(self, spec: apis.ModelSpec) -> list[Version]:
        """Returns one version or all, newest first, as they are now; also of a model that isn't served any more.

        Raises ServingError NOT_FOUND when there is no such version.
        """
        name, number = spec.name, spec.version.value if spec.HasField("version") else None
        with self._changed:
            model = self._models.get(name) or self._retired.get(name)
            versions = [replace(one) for one in (model.versions() if model else ()) if number in (None, one.number)]
        if not versions:
            missing = "any versions" if number is None else f"version {number}"
            raise ServingError(StatusCode.NOT_FOUND, f"Could not find {missing} of model {name}")
        return versions

    def stop(self) -> None:
        """Unloads everything and waits for it."""
        with self._configuring:
            for name in list(self._models):
                self._retire(name)
            for model in self._retired.values():
                model.join()

    def _retire(self, name: str) -> None:
        if earlier := self._retired.get(name):
            earlier.join()
        with self._changed:
            model = self._models.pop(name)
            self._retired[name] = model
        model.retire()

    def _check_labels(self, config: ModelConfig) -> None:
        model = self._models.get(config.name)
        if model is None:
            return
        with self._changed:
            available = {version.number for version in model.available}
        for label, number in config.labels.items():
            if model.config.labels.get(label, number) != number and number not in available:
                raise ServingError(
                    StatusCode.FAILED_PRECONDITION,
                    f"Request to assign label {label} to version {number} of model {config.name}, "
                    "which is not currently available for inference",
                )

    def _is_available(self, name: str) -> bool:
        model = self._models[name]
        if model.available:
            return True
        versions = model.versions()
        failed = [version for version in versions if version.error is not None]
        if model.polled and failed and len(failed) == len(versions):
            newest = failed[0]
            raise ServingError(
                StatusCode.UNKNOWN, f"model {name} version {newest.number} cannot be loaded: {newest.error}"
            )
        return False
